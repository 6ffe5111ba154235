package report_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/layerprof/layerprof/internal/archive"
	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/internal/judge"
	"github.com/layerprof/layerprof/internal/lint"
	"github.com/layerprof/layerprof/internal/report"
	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

const (
	llama = "../../perf/H200/meta-llama/Llama-3.1-8B/bf16"
	qwen  = "../../perf/H200/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16"
)

func source(dir string) report.Source {
	return report.Source{Name: dir, Files: os.DirFS(dir), Folder: dir}
}

func open(t *testing.T, dir string) *perfio.Bundle {
	t.Helper()
	b, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// near: shown is the value, rounded to some digits.
func near(t *testing.T, what, shown string, value float64, digits int) {
	t.Helper()
	got, err := strconv.ParseFloat(shown, 64)
	if err != nil || math.Abs(got/value-1) > 0.5001*math.Pow(10, float64(1-digits)) {
		t.Errorf("%s: the page shows %q, the bundle holds %v", what, shown, value)
	}
}

// The page shows the bundle's own numbers, in plots' readings, tables and maps.
func TestPageShowsTheBundle(t *testing.T) {
	b := openReport(t, source(llama))
	bundle := open(t, llama)

	// Every row of a layer's table.
	times := map[string]float64{}
	for _, tp := range bundle.TPs {
		for _, r := range tp.Dense {
			times[fmt.Sprint(tp.Degree, r.Layer, r.Tokens)] = r.TimeUS
		}
	}
	columns, rows := b.table("#plot-dense-down_proj")
	if want := []string{"tokens", "tp1, µs", "tp1 roofline, µs", "tp2, µs", "tp2 roofline, µs"}; !slices.Equal(columns, want) {
		t.Fatalf("columns %q, want %q", columns, want)
	}
	compared := 0
	for _, r := range rows {
		for i, degree := range []string{"1", "2"} {
			if want, ok := times[degree+"down_proj"+r[0]]; ok {
				near(t, "down_proj at "+r[0], r[1+2*i], want, 6)
				compared++
			} else if r[1+2*i] != "–" {
				t.Errorf("tp%s down_proj at %s: the page shows %q, the bundle has none", degree, r[0], r[1+2*i])
			}
		}
	}
	if compared < 4000 {
		t.Errorf("%d values were compared", compared)
	}

	// Every cell of some attention maps.
	for _, at := range []struct{ tp, pc, kp int }{{1, 0, 0}, {1, 512, 0}, {1, 2048, 4096}, {2, 16, 512}} {
		b.choose("#attention", "Degree", strconv.Itoa(at.tp))
		b.choose("#attention", "Prefill chunk", strconv.Itoa(at.pc))
		b.choose("#attention", "over a history", strconv.Itoa(at.kp))
		var cells map[string]string
		b.eval(&cells, `return Object.fromEntries([...document.querySelectorAll("#attention td[data-key]")].map((c) => [c.dataset.key, c.textContent]));`)
		held := 0
		for _, r := range bundle.TP(at.tp).Attention {
			if r.PrefillChunk == at.pc && r.KVPrefill == at.kp {
				held++
				key := fmt.Sprintf("%d,%d,%d,%d", r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode)
				near(t, "attention "+key, cells[key], r.TimeUS, 3)
			}
		}
		if held == 0 || len(cells) != held {
			t.Errorf("%+v: the map has %d cells, the bundle %d rows", at, len(cells), held)
		}
	}

	// The mouse over a cell.
	b.choose("#attention", "Degree", "1")
	b.choose("#attention", "Prefill chunk", "512")
	b.choose("#attention", "over a history", "0")
	var place struct{ X, Y float64 }
	b.eval(&place, `const c = document.querySelector("#attention td[data-key='512,0,8,1024']"); c.scrollIntoView({block: "center", behavior: "instant"}); const r = c.getBoundingClientRect(); return {X: r.x + r.width / 2, Y: r.y + r.height / 2};`)
	b.run(chromedp.MouseEvent("mouseMoved", place.X, place.Y))
	row := bundle.TP(1).Attention[slices.IndexFunc(bundle.TP(1).Attention, func(r perfio.AttentionRow) bool {
		return r == perfio.AttentionRow{PrefillChunk: 512, NDecode: 8, KVDecode: 1024, TimeUS: r.TimeUS}
	})]
	if tip := b.text("#tip"); !strings.Contains(tip, fmt.Sprintf("tp1: %.6g µs", row.TimeUS)) || !strings.Contains(tip, "n_decode 8, kv_decode 1024, prefill_chunk 512 over kv_prefill 0") {
		t.Errorf("the tip says %q of %+v", tip, row)
	}

	// In multiples of the least time.
	b.choose("#attention", "Show", "least")
	var multiple string
	b.eval(&multiple, `return document.querySelector("#attention td[data-key='512,0,8,1024']").textContent;`)
	key := tidy.Key{TP: 1, Table: "attention", Layer: "attention", PrefillChunk: 512, NDecode: 8, KVDecode: 1024}
	near(t, "multiple of the least time", multiple, row.TimeUS/lint.LeastUS(bundle)(key), 2) // of a least time with three digits
	b.choose("#attention", "Show", "us")

	// Errors are those of `perfcheck accuracy --shots`.
	wanted := attentionErrors(t, bundle, llama+"/tp1/validation.jsonl")
	if got := b.text("#overview .tiles"); !strings.Contains(got, "error of attention, accurate, against validation.jsonl, p50 / p90") || !strings.Contains(got, wanted) {
		t.Errorf("the overview says %q, the batches %q", got, wanted)
	}
	_, rows = b.table("#judged figure:nth-of-type(2)")
	sum := 0
	for _, r := range rows {
		n, _ := strconv.Atoi(r[1])
		sum += n
	}
	if sum != 220 {
		t.Errorf("the histogram counts %d batches, validation.jsonl holds 220", sum)
	}
	if text := b.text("#coverage"); !strings.Contains(text, "batched tokens 2048, sequences 256, tokens of context 32768, of a KV block 16") || !strings.Contains(text, "act_fn, down_proj, embedding") {
		t.Errorf("coverage: %q", text)
	}
	if text := b.text("#provenance"); !strings.Contains(text, "NVIDIA H200") || !strings.Contains(text, "FlashAttention 3") || !strings.Contains(text, "hf_overrides") {
		t.Errorf("provenance: %q", text)
	}
	if text := b.text("#drift"); !strings.Contains(text, "blocks measured again72") || !strings.Contains(text, "holds no journal") {
		t.Errorf("drift: %q", text)
	}
	b.shoot("light.png", 1400)
	b.theme("dark")
	b.shoot("dark.png", 1400)
	b.shoot("narrow.png", 390)
}

// attentionErrors are those of the accurate rules on a file of batches.
func attentionErrors(t *testing.T, b *perfio.Bundle, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var shots []perfio.BatchRow
	r := perfio.NewBatchReader(f, file)
	for r.Scan() {
		shot, err := r.Record()
		if err != nil {
			t.Fatal(err)
		}
		shots = append(shots, shot)
	}
	found, err := judge.Shots(b, shots, judge.Options{Rules: []string{"accurate"}})
	if err := errors.Join(r.Err(), err); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(found.Shots, func(s judge.ShotResult) bool { return s.Layer == "attention" && s.Kind == "all" })
	if i < 0 || found.Shots[i].N != 220 {
		t.Fatalf("found %+v", found.Shots)
	}
	return fmt.Sprintf("%.1f%% / %.1f%%", found.Shots[i].P50, found.Shots[i].P90)
}

// The same bundles give the same bytes.
func TestSamePage(t *testing.T) {
	var pages [2]bytes.Buffer
	for i := range pages {
		sources := []report.Source{{Name: "a", Files: bundletest.Files()}, {Name: "b", Files: bundletest.Files()}}
		if err := report.Write(&pages[i], sources); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(pages[0].Bytes(), pages[1].Bytes()) {
		t.Error("two pages of the same bundles differ")
	}
	for _, n := range []int{0, report.MaxBundles + 1} {
		sources := make([]report.Source, n)
		if err := report.Write(io.Discard, sources); err == nil || !strings.Contains(err.Error(), "expected 1 to 4") {
			t.Errorf("%d bundles: %v", n, err)
		}
	}
	// A writer that fails, and one bad row of validation.
	if err := report.Write(failing{}, []report.Source{{Name: "a", Files: bundletest.Files()}}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a failing writer: %v", err)
	}
	files := bundletest.Files()
	files["tp1/validation.jsonl"] = &fstest.MapFile{Data: []byte("{\"requests\":[[1,-1]]}\n")}
	if err := report.Write(io.Discard, []report.Source{{Name: "a", Files: files}}); err == nil || !strings.Contains(err.Error(), "tp1/validation.jsonl:1") {
		t.Errorf("a bad batch: %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, os.ErrClosed }

// Everything can be reached and read with the keyboard, and is legible.
func TestKeyboardAndContrast(t *testing.T) {
	b := openReport(t, source(qwen))
	bundle := open(t, qwen)
	focused := func() (text string) {
		b.eval(&text, `return document.activeElement.textContent.trim();`)
		return text
	}
	b.press(kb.Tab)
	if got := focused(); got != "Skip to the overview" {
		t.Errorf("the first stop is %q", got)
	}
	for _, want := range []string{"Overview", "Findings", "Latency", "Attention"} {
		if b.press(kb.Tab); focused() != want {
			t.Errorf("the next stop is %q, want %q", focused(), want)
		}
	}
	b.press(kb.Enter) // on Attention
	var hash string
	if b.eval(&hash, `return location.hash;`); hash != "#attention" {
		t.Errorf("enter went to %q", hash)
	}
	// Along a curve: the third point.
	b.focus("#plot-dense-o_proj .plot")
	b.press(right, right, right, right, left)
	var third perfio.DenseRow
	n := 0
	for _, r := range bundle.TPs[0].Dense {
		if r.Layer == "o_proj" {
			if n++; n == 3 {
				third = r
			}
		}
	}
	if got, want := b.text("#plot-dense-o_proj output"), fmt.Sprintf("tokens %d: tp1 %.5g µs", third.Tokens, third.TimeUS); !strings.HasPrefix(got, want) {
		t.Errorf("the plot reads %q, want %q", got, want)
	}
	// Through a map.
	b.choose("#moe", "Degree", "1")
	b.focus("#moe td")
	b.press(right, down)
	var key string
	b.eval(&key, `return document.activeElement.dataset.key || "";`)
	fields := strings.Split(key, ",")
	moe := slices.IndexFunc(bundle.TPs[0].MoE, func(r perfio.MoERow) bool {
		return len(fields) == 4 && fields[2] == strconv.Itoa(r.Tokens) && fields[3] == strconv.Itoa(r.ActivatedExperts)
	})
	if moe < 0 {
		// The second cell of the second row may be one that was not measured.
		if !strings.Contains(b.text("#moe output"), "not measured") {
			t.Errorf("the focus is on %q: %q", key, b.text("#moe output"))
		}
	} else if got := b.text("#moe output"); !strings.Contains(got, fmt.Sprintf("%.6g µs", bundle.TPs[0].MoE[moe].TimeUS)) {
		t.Errorf("the map reads %q", got)
	}
	// A cloud.
	b.focus("#judged .plot")
	b.press(kb.Home, right)
	if got := b.text("#judged output"); !regexp.MustCompile(`measured [0-9.]+ µs, predicted [0-9.]+ µs \([+-]?[0-9.]+%\); `).MatchString(got) {
		t.Errorf("the cloud reads %q", got)
	}
	// Every section by its link.
	var links []string
	b.eval(&links, `return [...document.querySelectorAll("nav a")].map((a) => a.getAttribute("href"));`)
	for _, link := range links {
		b.run(chromedp.Click(chromedp.CSS(`nav a[href="` + link + `"]`)))
		var seen bool
		b.eval(&seen, `const r = document.querySelector(args[0]).getBoundingClientRect(); return r.height > 20 && location.hash === args[0];`, link)
		if !seen {
			t.Errorf("%s was not shown", link)
		}
	}
	for _, theme := range []string{"light", "dark"} {
		b.eval(nil, `const s = document.querySelector("#theme"); s.value = args[0]; s.dispatchEvent(new Event("change"));`, theme)
		for _, found := range b.contrast() {
			t.Errorf("%s: contrast of %s", theme, found)
		}
	}
	// Each plot and each control has a name, each plot a table.
	var nameless []string
	b.eval(&nameless, `return [...document.querySelectorAll("select, .plot, table[role=grid], [role=region]")].filter((e) => !(e.getAttribute("aria-label") || e.labels && e.labels.length && e.labels[0].textContent.trim())).map((e) => e.outerHTML.slice(0, 80))
		.concat([...document.querySelectorAll("figure")].filter((f) => f.querySelector(".plot") && !f.querySelector("details.data")).map((f) => "no table: " + f.id));`)
	for _, e := range nameless {
		t.Errorf("no name: %s", e)
	}
}

// The largest bundle that ships, packed: its page's size, its skew tables, and
// the errors that docs/accuracy.md has of it.
func TestReferenceLlama(t *testing.T) {
	f, err := os.Open("../../perf/bundles/data/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16.tar.zst")
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := archive.Open(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		t.Skip("takes seconds: not with -short")
	}
	bundle, err := perfio.ReadBundle(fsys, ".")
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := report.Write(&page, []report.Source{{Name: "llama.tar.zst", Files: fsys}}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", page.Len())
	if page.Len() > 3_000_000 {
		t.Errorf("the page has %d bytes", page.Len())
	}
	b := openReport(t, report.Source{Name: "llama.tar.zst", Files: fsys})
	// Each finding's link shows a bucket that lint names.
	for _, f := range lint.Check(bundle) {
		b.run(chromedp.Click(chromedp.CSS(`[id="` + f.ID + `"] a.show`)))
		degree := int(f.Plot[2] - '0')
		var cell struct{ Class, Text string }
		b.eval(&cell, `const a = document.activeElement; return {Class: a.className, Text: a.textContent};`)
		reading := b.text("#alphas output")
		fit := bundle.TP(degree).SkewFit
		i := slices.IndexFunc(fit, func(r perfio.SkewFitRow) bool {
			return strings.Contains(reading, fmt.Sprintf("%s, %s, %s, %s; alpha %.6g; %d rows", r.NLabel, r.SkewRateLabel, r.KVBigLabel, r.KPLabel, r.Alpha, r.NSamples))
		})
		if i < 0 || !strings.Contains(cell.Class, "mark") || math.Abs(fit[i].Alpha) <= 3 {
			t.Errorf("%s: shows %+v: %q", f.ID, cell, reading)
			continue
		}
		near(t, f.ID, cell.Text, fit[i].Alpha, 3)
	}
	// All buckets of one chunk and history.
	b.choose("#alphas", "Degree", "2")
	b.choose("#alphas", "Prefill chunk", "512")
	b.choose("#alphas", "history", "kp<=2k")
	var cells []string
	b.eval(&cells, `return [...document.querySelectorAll("#alphas td[data-key]")].map((c) => c.textContent);`)
	var alphas []string
	for _, r := range bundle.TP(2).SkewFit {
		if r.PC == 512 && r.KPLabel == "kp<=2k" {
			text, _, _ := strings.Cut(fmt.Sprintf("%.3g", r.Alpha), "e")
			alphas = append(alphas, strings.TrimSuffix(text, ".0"))
		}
	}
	slices.Sort(cells)
	slices.Sort(alphas)
	if len(alphas) < 20 || !slices.Equal(cells, alphas) {
		t.Errorf("the page has the alphas %q, the bundle %q", cells, alphas)
	}
	_, rows := b.table("#skews figure")
	if len(rows) != 1200 {
		t.Errorf("%d cases of skew.csv are shown", len(rows))
	}
	for _, r := range rows {
		line, _ := strconv.Atoi(r[0])
		row := bundle.TPs[0].Skew[line-2]
		near(t, "skew.csv:"+r[0], r[3], row.TMeanUS, 6)
		near(t, "skew.csv:"+r[0], r[4], row.TMaxUS/row.TMeanUS, 6)
	}
	// T3 and T4 of parity.
	shown := b.text(".errors")
	for _, want := range []string{"attention, along prefill_chunkallstraight line155291.0911.72", "attention, along n_decodeallstraight line143533.9526.01"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the errors lack %q", want)
		}
	}
	b.shoot("rtx.png", 1400)
	b.theme("dark")
	b.shoot("rtx-dark.png", 1400)
}

// The anchors of a run, from the journal that it left.
func TestDriftFromTheJournal(t *testing.T) {
	program := filepath.Join(t.TempDir(), "profile")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/profile").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	from, to := t.TempDir(), t.TempDir()
	const bundle = "H200/meta-llama/Llama-3.1-8B/bf16"
	for _, args := range [][]string{{"--out", from, "--driver", "roofline"}, {"--out", to, "--driver", "replay:" + filepath.Join(from, bundle) + ",drift=0.04,noise=0.002,seed=1"}} {
		all := append([]string{"run", "--model", "meta-llama/Llama-3.1-8B", "--hardware", "H200", "--skip-skew", "--max-num-batched-tokens", "256", "--max-num-seqs", "16", "--attention-max-kv", "1024"}, args...)
		if out, err := exec.Command(program, all...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	// What the roofline driver measured is what the page's roofline says.
	b := openReport(t, source(filepath.Join(from, bundle)))
	b.choose("#latency", "Show", "roof")
	for _, figure := range []string{"#plot-dense-gate_up_proj", "#plot-dense-layernorm", "#plot-per_sequence-lm_head"} {
		_, rows := b.table(figure)
		for _, r := range rows {
			if ratio, err := strconv.ParseFloat(r[1], 64); err != nil || math.Abs(ratio-1) > 6e-4 {
				t.Errorf("%s at %s: the driver's own time is %q of the roofline", figure, r[0], r[1])
			}
		}
		if len(rows) < 10 {
			t.Errorf("%s: %d rows", figure, len(rows))
		}
	}

	dir := filepath.Join(to, bundle)
	entries, err := profile.TailJournal(dir).Next(profile.EntryAnchor)
	if err != nil || len(entries) < 10 {
		t.Fatalf("%d anchors, %v", len(entries), err)
	}
	b = openReport(t, source(dir))
	_, rows := b.table("#drifts figure")
	if len(rows) != len(entries) {
		t.Fatalf("the table has %d anchors, the journal %d", len(rows), len(entries))
	}
	var levels []float64
	for _, e := range entries {
		levels = append(levels, e.LevelUS)
	}
	slices.Sort(levels)
	most := 0.0
	for i, r := range rows {
		near(t, "anchor "+r[0], r[3], entries[i].LevelUS, 6)
		off, err := strconv.ParseFloat(r[4], 64)
		if want := 100 * (entries[i].LevelUS/levels[len(levels)/2] - 1); err != nil || math.Abs(off-want) > 0.001 {
			t.Errorf("anchor %d is %s%% off, want %.4f%%", i, r[4], want)
		}
		most = max(most, math.Abs(off))
	}
	if most < 3 || most > 6 {
		t.Errorf("the anchors are at most %g%% off their median; the device's states are 4%% apart", most)
	}
	b.focus("#drifts .plot")
	b.press(right)
	if got, want := b.text("#drifts output"), fmt.Sprintf("(%.5g µs)", entries[0].LevelUS); !strings.Contains(got, want) {
		t.Errorf("the plot reads %q, want %q", got, want)
	}
	if text := b.text("#drift"); strings.Contains(text, "holds no journal") || !strings.Contains(text, "blocks measured again") {
		t.Errorf("drift: %q", text)
	}
	b.shoot("drift.png", 1400)
}

// planted is a copy of a bundle's files in which rows were changed.
func planted(t *testing.T, dir string, change func(name string, text string) string) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{}
	for _, name := range []string{"meta.yaml", "tp1/dense.csv", "tp1/per_sequence.csv", "tp1/attention.csv", "tp1/moe.csv", "tp1/batches.jsonl"} {
		text, err := os.ReadFile(dir + "/" + name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		out[name] = &fstest.MapFile{Data: []byte(change(name, string(text)))}
	}
	return out
}

// scale changes the time of the row with a key.
func scale(t *testing.T, text, key string, by float64) string {
	t.Helper()
	at := strings.Index(text, "\n"+key+",")
	if at < 0 {
		t.Fatalf("found no row %s", key)
	}
	from := at + len(key) + 2
	to := from + strings.IndexAny(text[from:], "\r\n")
	us, err := strconv.ParseFloat(text[from:to], 64)
	if err != nil {
		t.Fatal(err)
	}
	return text[:from] + fmt.Sprintf("%.6g", by*us) + text[to:]
}

// A finding's link leads to the figure that shows its row, in either bundle;
// its id is that of lint.
func TestFindingsLeadToFigures(t *testing.T) {
	files := planted(t, llama, func(name, text string) string {
		switch name {
		case "tp1/dense.csv":
			return scale(t, text, "down_proj,208", 5)
		case "tp1/attention.csv":
			return scale(t, text, "512,256,8,1024", 6)
		}
		return text
	})
	bad, err := perfio.ReadBundle(files, ".")
	if err != nil {
		t.Fatal(err)
	}
	bad.Dir = "bad"
	b := openReport(t, source(llama), report.Source{Name: "bad", Files: files})
	seen := map[string]bool{}
	for _, f := range lint.Check(bad) {
		var row struct{ Rule, Reason, Link string }
		b.eval(&row, `const r = document.getElementById("B-" + args[0]); return r ? {Rule: r.cells[2].textContent, Reason: r.cells[3].querySelector("bdi").textContent, Link: r.querySelector("a.show").getAttribute("href")} : {};`, f.ID)
		if row.Rule != f.Rule || row.Reason != f.Reason || row.Link != "#"+f.Plot {
			t.Errorf("%s: the page has %+v, lint %s: %s", f.ID, row, f.Rule, f.Reason)
		}
		seen[f.Rule] = true
		b.run(chromedp.Click(chromedp.CSS(`[id="B-` + f.ID + `"] a.show`)))
		switch f.Rule {
		case "spike":
			var hit string
			if b.eval(&hit, `return document.querySelector("figure.hit").id;`); hit != "plot-dense-down_proj" {
				t.Errorf("the spike is shown in %q", hit)
			}
		case "attention-spike":
			var key string
			if b.eval(&key, `return document.activeElement.dataset.key + " " + document.activeElement.className.trim();`); key != "512,256,8,1024 mark" {
				t.Errorf("the spike is shown in %q", key)
			}
			if text := b.text("#attention output"); !strings.Contains(text, "lint names this row") || !strings.Contains(text, "B tp1") {
				t.Errorf("the map reads %q", text)
			}
		}
		var exists bool
		if b.eval(&exists, `return !!document.getElementById(args[0]);`, f.Plot); !exists {
			t.Errorf("%s: the page has no figure %s", f.ID, f.Plot)
		}
	}
	if !seen["spike"] || !seen["attention-spike"] {
		t.Fatalf("lint found %v", seen)
	}
	var flags []string
	b.eval(&flags, `return [...document.querySelectorAll("#h-attention .flag")].map((a) => a.textContent + " " + a.getAttribute("href"));`)
	if want := []string{"B: attention-falling #B-attention-falling-tp1-attention", "B: attention-spike #B-attention-spike-tp1-attention"}; !slices.Equal(flags, want) {
		t.Errorf("the section's flags are %q", flags)
	}
	// Side by side: two maps and their ratio.
	var captions []string
	b.eval(&captions, `return [...document.querySelectorAll("#attention caption")].map((c) => c.firstChild.textContent);`)
	if !slices.Equal(captions, []string{"A · tp1", "B · tp1", "B ÷ A · tp1"}) {
		t.Errorf("the maps are %q", captions)
	}
	if text := b.text("#differences"); !strings.Contains(text, "B against A") || !strings.Contains(text, "tokens 208") {
		t.Errorf("differences: %q", text)
	}
	b.choose("#latency", "Show", "ratio")
	columns, rows := b.table("#plot-dense-down_proj")
	i := slices.IndexFunc(rows, func(r []string) bool { return r[0] == "208" })
	if len(columns) != 2 || columns[1] != "B tp1 ÷ A" || i < 0 || rows[i][1] != "5" {
		t.Errorf("the ratio's table has %q", columns)
	}
	b.choose("#latency", "Show", "us")
	b.shoot("two.png", 1400)
	b.theme("dark")
	b.shoot("two-dark.png", 1400)
}

// Names with markup and with right-to-left text, and a million rows: text,
// nothing more, in a page of a bounded size.
func TestHostile(t *testing.T) {
	script := `</script><script>window.pwned=1</script>`
	image := `"><img src=http://example.invalid/x onerror=window.pwned=2>`
	bidi := "\u202eevil\u2066 שלום"
	files := bundletest.Files()
	meta := open2(t, files)
	for path, value := range map[string]string{"model": script + "/" + image, "hardware": "<b onmouseover=alert(1)>" + bidi, "variant": "{{.}}${alert(1)}", "gpu": image} {
		if err := meta.Set(value, path); err != nil {
			t.Fatal(err)
		}
	}
	if err := meta.Set([]string{script, image, bidi}, "skew_fit", "bucket_axes", "n_labels"); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"cpu": script + bidi, "graph_mode": image, "model_runner": script, "vllm_version": image} {
		if err := meta.Set(value, "steps", "per_tp", "1", perfio.ModeEagerSync, key); err != nil {
			t.Fatal(err)
		}
	}
	var text strings.Builder
	if err := perfio.WriteMeta(&text, meta); err != nil {
		t.Fatal(err)
	}
	files["meta.yaml"].Data = []byte(text.String())
	text.Reset()
	text.WriteString("layer,tokens,time_us\n")
	for i, layer := range []string{"</script>", script, image, bidi, "javascript:alert(1)", "a b#c?d&amp;", strings.Repeat("w", 256)} {
		for n := 1; n <= 9; n++ {
			us := n + i
			if n == 5 {
				us *= 40 // so that lint has something to say of it
			}
			fmt.Fprintf(&text, "%s,%d,%d\n", csvField(layer), n, us)
		}
	}
	for i := range 3000 {
		fmt.Fprintf(&text, "layer %d,1,1\n", i)
	}
	files["tp1/dense.csv"].Data = []byte(text.String())
	files["tp1/skew_fit.csv"].Data = []byte("pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples\n0," +
		csvField(script) + "," + csvField(image) + ",<i>,</td>,-99,1\n")
	text.Reset()
	text.WriteString("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n")
	const rows = 1_000_000
	for n := range rows {
		fmt.Fprintf(&text, "%d,0,%d,%d,%d\n", n/(rows/10), 1+n/1000%100, 1+n%1000, 1+n%7)
	}
	files["tp1/attention.csv"].Data = []byte(text.String())

	b := openReport(t, report.Source{Name: script + image + bidi, Files: files})
	var state struct {
		Pwned     bool
		Scripts   int
		Foreign   int
		Size      int
		Handlers  int
		Title     string
		Direction bool
	}
	b.eval(&state, `
		const all = [...document.querySelectorAll("*")];
		return {Pwned: "pwned" in window, Scripts: document.scripts.length, Foreign: document.querySelectorAll("img, iframe, object, embed, link, base, form, i i, b b").length,
			Handlers: all.filter((e) => [...e.attributes].some((a) => a.name.startsWith("on"))).length + [...document.querySelectorAll("a")].filter((a) => !a.getAttribute("href").startsWith("#")).length,
			Size: document.documentElement.outerHTML.length, Title: document.title, Direction: /[\u202a-\u202e\u2066-\u2069]/.test(document.documentElement.outerHTML)};`)
	if state.Pwned || state.Scripts != 3 || state.Foreign != 0 || state.Handlers != 0 || state.Direction {
		t.Errorf("%+v", state)
	}
	if !strings.Contains(state.Title, "</script><script>") {
		t.Errorf("the title is %q", state.Title)
	}
	var layers []string
	b.eval(&layers, `return [...document.querySelectorAll("#latency figcaption bdi")].map((e) => e.textContent);`)
	for _, want := range []string{"</script>", script, image, "javascript:alert(1)"} {
		if !slices.Contains(layers, want) {
			t.Errorf("no figure is called %s", want)
		}
	}
	if text := b.text("#steps .modes"); !strings.Contains(text, script) || !strings.Contains(text, image) {
		t.Errorf("the modes of steps: %q", text)
	}
	// Its links lead where they say.
	var broken []string
	b.eval(&broken, `return [...document.querySelectorAll("a.show")].filter((a) => !document.getElementById(decodeURIComponent(a.hash.slice(1)))).map((a) => a.hash);`)
	for _, link := range slices.Compact(broken) {
		if !strings.Contains(link, "layer") { // figures beyond the page's bound
			t.Errorf("%s leads nowhere", link)
		}
	}
	if text := b.text("#overview"); !strings.Contains(text, "rows and columns of attention grids beyond") || !strings.Contains(text, "curves of layers beyond the first") {
		t.Errorf("the page does not say what it leaves out: %q", text)
	}
	t.Logf("%d bytes of page", state.Size)
	if state.Size > 8<<20 {
		t.Errorf("the page has %d bytes", state.Size)
	}
	b.shoot("hostile.png", 1400)
}

func csvField(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func open2(t *testing.T, files fstest.MapFS) *perfio.Meta {
	t.Helper()
	b, err := perfio.ReadBundle(files, ".")
	if err != nil {
		t.Fatal(err)
	}
	return b.Meta
}
