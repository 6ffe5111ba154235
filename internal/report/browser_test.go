package report_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/layerprof/layerprof/internal/report"
)

// browser is a headless Chromium with one report open. What a reader must not
// see, console errors and requests, fails the test.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string
}

// openReport writes a report of sources and opens it.
func openReport(t *testing.T, sources ...report.Source) *browser {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser, and every row of large bundles: not with -short")
	}
	path := findChromium(t)
	file := filepath.Join(t.TempDir(), "report.html")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Write(f, sources); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1400, 1000), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("disable-sync", true), chromedp.Flag("hide-scrollbars", true),
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	address := (&url.URL{Scheme: "file", Path: file}).String()
	err = chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			b.problem("console.%s: %s", e.Type, consoleText(e.Args))
		case *runtime.EventExceptionThrown:
			b.problem("exception: %s: %s", e.ExceptionDetails.Text, consoleText([]*runtime.RemoteObject{e.ExceptionDetails.Exception}))
		case *log.EventEntryAdded:
			b.problem("log: %s: %s", e.Entry.Level, e.Entry.Text)
		case *network.EventRequestWillBeSent:
			if e.Request.URL != address {
				b.problem("request: %s", e.Request.URL)
			}
		case *page.EventJavascriptDialogOpening:
			b.problem("dialog: %s", e.Message)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	command(b, network.Enable, network.EnableParams{})
	command(b, log.Enable, cdp.Empty{})
	command(b, page.Enable, page.EnableParams{})
	b.theme("light")
	b.run(chromedp.Navigate(address), chromedp.WaitReady(chromedp.CSS(`html[data-ready="true"]`)))
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, p := range b.problems {
			t.Error(p)
		}
	})
	return b
}

func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("found no chromium in PATH")
	return ""
}

func consoleText(args []*runtime.RemoteObject) string {
	var parts []string
	for _, a := range args {
		if a == nil {
			continue
		}
		parts = append(parts, string(a.Value)+a.Description)
	}
	return strings.Join(parts, " ")
}

func (b *browser) problem(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

func (b *browser) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// command sends a command of the protocol.
func command[P, R any](b *browser, c cdp.Command[P, R], params P) R {
	b.t.Helper()
	result, err := chromedp.Call(b.ctx, c, params)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// eval runs a function body in the page, with args, and decodes what it
// returns, unless out is nil.
func (b *browser) eval(out any, body string, args ...any) {
	b.t.Helper()
	given, err := json.Marshal(args)
	if err != nil {
		b.t.Fatal(err)
	}
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]byte](fmt.Sprintf("(async (args) => {%s})(%s).then((v) => v === undefined ? null : v)", body, given), chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(text, out); err != nil {
		b.t.Fatalf("%v in %s", err, text)
	}
}

func (b *browser) text(selector string) string {
	b.t.Helper()
	var text string
	b.eval(&text, `const e = document.querySelector(args[0]); return e ? e.textContent : "found no " + args[0];`, selector)
	return text
}

// choose sets the select whose label begins so, inside a container.
func (b *browser) choose(container, label, value string) {
	b.t.Helper()
	var found bool
	b.eval(&found, `
		const label = [...document.querySelectorAll(args[0] + " label")].find((l) => l.textContent.startsWith(args[1]));
		const select = label && label.querySelector("select");
		if (!select || ![...select.options].some((o) => o.value === args[2])) return false;
		select.value = args[2];
		select.dispatchEvent(new Event("change"));
		return true;`, container, label, value)
	if !found {
		b.t.Fatalf("%s: %s has no choice %q", container, label, value)
	}
}

// press sends keys to what has the focus.
func (b *browser) press(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		b.run(chromedp.KeyEvent(k))
	}
}

// focus puts the focus on an element.
func (b *browser) focus(selector string) {
	b.t.Helper()
	b.run(chromedp.Focus(chromedp.CSS(selector)))
}

// table opens the table behind a figure and reads its rows.
func (b *browser) table(figure string) (columns []string, rows [][]string) {
	b.t.Helper()
	var out struct {
		Columns []string
		Rows    [][]string
	}
	b.eval(nil, `document.querySelector(args[0]).open = true;`, figure+" details.data")
	b.run(chromedp.WaitReady(chromedp.CSS(figure + " details.data table")))
	b.eval(&out, `
		const t = document.querySelector(args[0] + " details.data table");
		return {Columns: [...t.querySelectorAll("thead th")].map((c) => c.textContent), Rows: [...t.querySelectorAll("tbody tr")].map((r) => [...r.cells].map((c) => c.textContent))};`, figure)
	return out.Columns, out.Rows
}

// theme is light or dark by the system's preference.
func (b *browser) theme(name string) {
	b.t.Helper()
	command(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}, // a click meets what it aims at
	}})
}

// shoot keeps a picture of the whole page at a width.
func (b *browser) shoot(name string, width int) {
	b.t.Helper()
	command(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: int64(width), Height: 1000, DeviceScaleFactor: 1})
	b.eval(nil, `scrollTo(0, 0); await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));`)
	var height float64
	b.eval(&height, `return document.documentElement.scrollHeight;`)
	beyond := true
	picture := command(b, page.CaptureScreenshot, page.CaptureScreenshotParams{
		CaptureBeyondViewport: &beyond, Clip: &page.Viewport{Width: float64(width), Height: height, Scale: 1},
	}).Data
	command(b, emulation.ClearDeviceMetricsOverride, cdp.Empty{})
	if err := os.WriteFile(filepath.Join(b.t.ArtifactDir(), name), picture, 0o666); err != nil {
		b.t.Fatal(err)
	}
	if len(picture) < 10_000 {
		b.t.Errorf("%s: %d bytes are no picture of a report", name, len(picture))
	}
}

// contrast lists texts whose colour is too near that of what is behind them:
// below 4.5 to 1, or 3 to 1 where they are large.
func (b *browser) contrast() []string {
	b.t.Helper()
	var found []string
	b.eval(&found, `
		const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); return m.length === 3 ? m.concat(1) : m; };
		const light = (c) => { const l = c.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4)); return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
		const out = [];
		const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		let seen = 0;
		while (walk.nextNode()) {
			const text = walk.currentNode.textContent.trim(), e = walk.currentNode.parentElement;
			if (!text || ["SCRIPT", "STYLE", "NOSCRIPT", "OPTION"].includes(e.tagName) || !e.checkVisibility()) continue;
			const style = getComputedStyle(e);
			let back = null;
			for (let p = e; p && !back; p = p.parentElement) { const c = parse(getComputedStyle(p).backgroundColor); if (c[3] === 1) back = c; }
			const a = light(parse(style.color)), b = light(back || [255, 255, 255]);
			const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
			const size = parseFloat(style.fontSize), large = size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700;
			seen++;
			if (ratio < (large ? 3 : 4.5)) out.push(text.slice(0, 40) + ": " + ratio.toFixed(2) + " (" + style.color + ")");
		}
		if (seen < 100) out.push("only " + seen + " texts were looked at");
		return out;`)
	return found
}

var (
	right = kb.ArrowRight
	left  = kb.ArrowLeft
	down  = kb.ArrowDown
)
