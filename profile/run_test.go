package profile

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

// mustRun runs and demands a complete bundle.
func mustRun(t *testing.T, opts RunOptions) *Report {
	t.Helper()
	report, err := Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if report.Partial() {
		t.Fatalf("partial: %+v", report)
	}
	return report
}

// tables reads all files of the tp folders.
func tables(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	names, err := filepath.Glob(filepath.Join(dir, "tp*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		relative, _ := filepath.Rel(dir, name)
		files[relative] = string(text)
	}
	return files
}

func sameTables(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s differs: %d bytes, expected %d", name, len(got[name]), len(want[name]))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, expected %d", len(got), len(want))
	}
}

func TestRun(t *testing.T) {
	d := newFakeDevice()
	dir := t.TempDir()
	opts := testOptions(t, d, dir)
	opts.TPs = []int{1, 2}
	opts.PlanOptions.TPs = opts.TPs
	opts.Plan = func(tp int, e *Engine) (TPPlan, error) {
		return NewTPPlan(tp, e.Limits, testArchitecture, opts.PlanOptions)
	}
	report := mustRun(t, opts)
	bundle, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := NewPlan(d.limits, testArchitecture, opts.PlanOptions)
	if err != nil {
		t.Fatal(err)
	}
	for i, tp := range bundle.TPs {
		p := &plan.TPs[i]
		if got, want := len(tp.Attention), len(p.category(Attention).Shots); got != want {
			t.Errorf("tp%d: %d attention rows, expected %d", tp.Degree, got, want)
		}
		if got, want := len(tp.Skew), len(p.category(Skew).Cases); got != want {
			t.Errorf("tp%d: %d skew rows, expected %d", tp.Degree, got, want)
		}
		if got, want := len(tp.Dense), 2*len(p.category(Dense).Shots); got != want {
			t.Errorf("tp%d: %d dense rows, expected %d", tp.Degree, got, want)
		}
		if len(tp.SkewFit) == 0 {
			t.Errorf("tp%d: no skew fit", tp.Degree)
		}
	}
	if bundle.Meta.SkewStatistic() != perfio.SkewMean {
		t.Errorf("skew_statistic %s", bundle.Meta.SkewStatistic())
	}
	if d.opened != 1 || d.closed != 1 {
		t.Errorf("%d drivers opened, %d closed", d.opened, d.closed)
	}

	// A second run finds everything and fires nothing.
	fired := d.fired.Load()
	again := mustRun(t, opts)
	if d.fired.Load() != fired || again.Measured != 0 || again.Reused != report.Measured {
		t.Errorf("a second run fired %d shots, report %+v", d.fired.Load()-fired, again)
	}
	before := tables(t, dir)
	if err := os.RemoveAll(filepath.Join(dir, "tp1")); err != nil {
		t.Fatal(err)
	}
	mustRun(t, opts)
	sameTables(t, tables(t, dir), before)
	meta, _ := os.ReadFile(filepath.Join(dir, "meta.yaml"))
	t.Logf("%s", meta)
}
