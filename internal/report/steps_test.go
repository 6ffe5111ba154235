package report_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/internal/lint"
	"github.com/layerprof/layerprof/internal/report"
	"github.com/layerprof/layerprof/perfio"
)

// middle is the median of times, of which NaN is none: the least that half of
// them do not exceed.
func middle(times []float64) float64 {
	times = slices.DeleteFunc(times, math.IsNaN)
	if len(times) == 0 {
		return math.NaN()
	}
	slices.Sort(times)
	return times[(len(times)-1)/2]
}

// Whole steps: the medians by the number of decodes, each step with a prefill,
// and how the engine ran them.
func TestSteps(t *testing.T) {
	b := openReport(t, source(llama))
	rows := open(t, llama).TPs[0].Steps
	var modes []string
	steps, forwards := map[string]map[int][]float64{}, map[string]map[int][]float64{}
	prefills := map[string]perfio.StepRow{}
	for i, r := range rows {
		if !slices.Contains(modes, r.Mode) {
			modes = append(modes, r.Mode)
			steps[r.Mode], forwards[r.Mode] = map[int][]float64{}, map[int][]float64{}
		}
		switch {
		case r.NPrefill == 0:
			steps[r.Mode][r.NDecode] = append(steps[r.Mode][r.NDecode], r.StepUS)
			forwards[r.Mode][r.NDecode] = append(forwards[r.Mode][r.NDecode], r.DeviceForwardUS)
		case !math.IsNaN(r.StepUS):
			prefills[strconv.Itoa(i+2)] = r
		}
	}
	columns, table := b.table("#stepplots figure:nth-of-type(1)")
	var want []string
	for _, mode := range modes {
		want = append(want, mode+", µs", "p10", "p90", "forward, µs", "steps")
	}
	if !slices.Equal(columns, append([]string{"n_decode"}, want...)) {
		t.Fatalf("columns %q", columns)
	}
	value := func(what, shown string, us float64) {
		t.Helper()
		if math.IsNaN(us) {
			if shown != "–" {
				t.Errorf("%s: the page shows %q, nothing was measured", what, shown)
			}
			return
		}
		near(t, what, shown, us, 6)
	}
	compared := 0
	for _, row := range table {
		n, err := strconv.Atoi(row[0])
		if err != nil {
			t.Fatal(err)
		}
		for k, mode := range modes {
			what := mode + " at " + row[0]
			value(what, row[1+5*k], middle(slices.Clone(steps[mode][n])))
			value(what+", forward", row[4+5*k], middle(slices.Clone(forwards[mode][n])))
			if count := len(steps[mode][n]); count > 0 && row[5+5*k] != strconv.Itoa(count) { // each row is one step
				t.Errorf("%s: %q steps, the bundle has %d", what, row[5+5*k], count)
			}
			compared++
		}
	}
	if compared < 150 {
		t.Errorf("%d values were compared", compared)
	}
	_, table = b.table("#stepplots figure:nth-of-type(2)")
	if len(table) != len(prefills) {
		t.Errorf("%d steps with a prefill, the bundle has %d", len(table), len(prefills))
	}
	for _, row := range table {
		r := prefills[row[1]]
		if row[0] != r.Mode || row[2] != strconv.Itoa(r.NDecode+r.PrefillChunk) || row[3] != strconv.Itoa(r.NDecode) {
			t.Errorf("line %s: %q, the bundle has %+v", row[1], row, r)
		}
		value("line "+row[1], row[4], r.StepUS)
	}
	if text := b.text("#steps .modes"); !strings.Contains(text, "1, 2, 4, 8…256 by 8, 272…512 by 16") || !strings.Contains(text, fmt.Sprintf("graph_sync32%d", count(rows, perfio.ModeGraphSync))) {
		t.Errorf("modes: %q", text)
	}
	b.focus("#stepplots .plot")
	b.press(kb.Home)
	if got := b.text("#stepplots output"); !strings.HasPrefix(got, "n_decode 1: graph_sync ") || !strings.Contains(got, "eager_sync") {
		t.Errorf("the plot reads %q", got)
	}
}

func count(rows []perfio.StepRow, mode string) int {
	n := 0
	for _, r := range rows {
		if r.Mode == mode {
			n++
		}
	}
	return n
}

// A step that lint names is ringed in the figure that its link leads to; beside
// another bundle the steps are held against it.
func TestStepFindings(t *testing.T) {
	files := planted(t, llama, func(_, text string) string { return text })
	text, err := os.ReadFile(llama + "/tp1/step.csv")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	bad := 0
	for i, line := range lines {
		fields := strings.Split(line, ",")
		if fields[0] == perfio.ModeGraphSync && fields[4] == "3" && fields[8] == "0" && fields[24] != "" {
			fields[24] = "77.5"
			lines[i], bad = strings.Join(fields, ","), i+1
			break
		}
	}
	if bad == 0 {
		t.Fatal("no step of three decodes")
	}
	files["tp1/step.csv"] = &fstest.MapFile{Data: []byte(strings.Join(lines, ""))}
	bundle, err := perfio.ReadBundle(files, ".")
	if err != nil {
		t.Fatal(err)
	}
	var id string
	for _, f := range lint.Check(bundle) {
		if f.Rule == "step-kernels" && f.Places[0].Line == bad {
			id = f.ID
		}
	}
	if id == "" {
		t.Fatalf("lint found %+v", lint.Check(bundle))
	}
	b := openReport(t, report.Source{Name: "good", Files: os.DirFS(llama)}, report.Source{Name: "bad", Files: files})
	b.run(chromedp.Click(chromedp.CSS(`[id="B-` + id + `"] a.show`)))
	var at struct {
		Hash  string
		Top   float64
		Marks [][]int
		Sizes []int
	}
	b.eval(&at, `const d = JSON.parse(document.getElementById("data").textContent).steps.find((s) => s.bundle === 1 && s.marks);
		return {Hash: location.hash, Top: document.getElementById("steps").getBoundingClientRect().top, Marks: d ? d.marks.map((i) => [i, d.decodes[i]]) : [], Sizes: d ? d.sizes : []};`)
	if at.Hash != "#tp1-step" || math.Abs(at.Top) > 500 || len(at.Marks) != 1 || at.Marks[0][1] != 3 || len(at.Sizes) != 51 {
		t.Errorf("the link leads to %+v", at)
	}
	if text := b.text("#h-steps"); !strings.Contains(text, "B: step-kernels") {
		t.Errorf("the section's flags are %q", text)
	}
	if text := b.text("#differences"); !strings.Contains(text, "graph_sync (step)step, 32 layers, decode, n ≤ 16") {
		t.Errorf("the differences have no steps: %q", text)
	}
	b.shoot("steps.png", 1400)
	b.theme("dark")
	for _, found := range b.contrast() {
		t.Errorf("contrast of %s", found)
	}
	b.shoot("steps-dark.png", 390)
}

// What ranks exchange is shown as the layers' times are, by layer and collective.
func TestCollectives(t *testing.T) {
	files := bundletest.Files()
	rows := bundletest.Collectives()
	for i := range 4 { // a second collective of one layer
		rows = append(rows, perfio.CollectiveRow{Layer: "o_proj", Collective: "broadcast", Tokens: 1 << i, Ranks: 2, Bytes: 64 << i, Calls: 1, TimeUS: 3 + float64(i)})
	}
	var text bytes.Buffer
	if err := perfio.WriteCollectives(&text, rows); err != nil {
		t.Fatal(err)
	}
	files["tp2/collectives.csv"] = &fstest.MapFile{Data: text.Bytes()}
	b := openReport(t, report.Source{Name: "bundle", Files: files})
	compared := 0
	for _, of := range []string{"o_proj-all_reduce", "o_proj-broadcast", "lm_head-all_gather"} {
		columns, table := b.table("#plot-collectives-" + of)
		if !slices.Equal(columns, []string{"tokens", "tp2, µs"}) {
			t.Errorf("%s: columns %q", of, columns)
		}
		for _, row := range table {
			i := slices.IndexFunc(rows, func(r perfio.CollectiveRow) bool {
				return r.Layer+"-"+r.Collective == of && strconv.Itoa(r.Tokens) == row[0]
			})
			if i < 0 {
				t.Errorf("%s at %s: the bundle has none", of, row[0])
				continue
			}
			near(t, of+" at "+row[0], row[1], rows[i].TimeUS, 6)
			compared++
		}
	}
	if compared != 4+4+3 {
		t.Errorf("%d values were compared", compared)
	}
	// An emulated degree has none: lint says so, and its link leads there.
	var leads bool
	b.eval(&leads, `const a = document.querySelector("#tp-collectives-tp2-collectives-embedding-all_reduce a.show"); return !!a && !!document.getElementById(a.hash.slice(1)).closest("figure");`)
	if !leads {
		t.Errorf("no link to the collectives: %q", b.text("#findings"))
	}
}
