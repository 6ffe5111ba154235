package replay_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/profile/replay"
)

// That a replayed run measures and does not copy is shown on the H200 bundle:
// the smallest, and one whose skew cases are a sample.
const h200 = "../../../shared/reference/h200/perf/H200/meta-llama/Llama-3.1-8B/bf16"

// sourceBundle is the reference's folder, or the test skips.
func sourceBundle(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(h200); err != nil {
		t.Skipf("no reference data: %v", err)
	}
	return h200
}

// replayed runs a plan of the source's own rows, or of the grids, and returns
// the new bundle's folder.
func replayed(t *testing.T, text string, ownRows bool, change func(*profile.RunOptions)) string {
	t.Helper()
	options, err := replay.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	source, err := replay.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	b, err := perfio.OpenBundle(options.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	arch, err := perfio.LoadArchitecture(b.Meta.Architecture())
	if err != nil {
		t.Fatal(err)
	}
	model, err := perfio.LoadModelConfig(b.Meta.Model())
	if err != nil {
		t.Fatal(err)
	}
	run := profile.RunOptions{
		Dir: filepath.Join(t.TempDir(), "bf16"), Hardware: b.Meta.Hardware(), Variant: b.Meta.Variant(), TPs: []int{1},
		Open: func() (profile.Driver, error) { return source.NewDriver(), nil },
		Spec: profile.EngineSpec{
			Model: model, Architecture: arch, DType: "bfloat16", KVCacheDType: "auto", MaxNumBatchedTokens: 2048, MaxNumSeqs: 256,
		},
		Iterations: 3, TargetError: -1, ProfilerVersion: "test",
	}
	if change != nil {
		change(&run)
	}
	if run.PlanOptions, err = run.PlanOptions.Filled(); err != nil {
		t.Fatal(err)
	}
	run.Plan = func(tp int, e *profile.Engine) (profile.TPPlan, error) {
		if !ownRows {
			return profile.NewTPPlan(tp, e.Limits, arch, run.PlanOptions)
		}
		p, err := profile.NewPlanFromBundle(b, e.Limits, arch, run.PlanOptions)
		if err != nil {
			return profile.TPPlan{}, err
		}
		return p.TPs[0], nil
	}
	report, err := profile.Run(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	if report.Partial() {
		t.Fatalf("report %+v", report)
	}
	return run.Dir
}

// tables are the lines of a bundle's tp1 by file.
func tables(t *testing.T, dir string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, name := range []string{perfio.DenseFile, perfio.PerSequenceFile, perfio.AttentionFile, perfio.SkewFile, perfio.SkewFitFile} {
		data, err := os.ReadFile(filepath.Join(dir, "tp1", name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		out[name] = strings.SplitAfter(string(data), "\n")
	}
	return out
}

// A sub-plan's rows are the source's of that plan, and no others.
func TestReplayOfSubPlan(t *testing.T) {
	source := sourceBundle(t)
	dir := replayed(t, source, false, func(o *profile.RunOptions) {
		o.Spec.MaxNumSeqs = 64
		o.PlanOptions.MaxKV, o.PlanOptions.ChunkFactor = 1024, 4
		o.PlanOptions.Only = []profile.Category{profile.Attention, profile.PerSequence}
	})
	got, all := tables(t, dir), tables(t, source)
	if len(got) != 2 {
		t.Errorf("found %d files, expected attention.csv and per_sequence.csv", len(got))
	}
	b, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	chunks, lengths, decodes := map[int]bool{}, map[int]bool{}, map[int]bool{}
	for _, r := range b.TPs[0].Attention {
		chunks[r.PrefillChunk], lengths[r.KVDecode], decodes[r.NDecode] = true, true, true
	}
	// 0, 16, 64, 256, 1024, 2048; 0, 16 … 1024; 0, 1 … 64.
	if len(chunks) != 6 || len(lengths) != 8 || len(decodes) != 8 {
		t.Errorf("found %d chunks, %d decode lengths, %d numbers of decodes", len(chunks), len(lengths), len(decodes))
	}
	for name, lines := range got {
		known := map[string]bool{}
		for _, l := range all[name] {
			known[l] = true
		}
		for _, l := range lines {
			if !known[l] {
				t.Errorf("%s: the source has no line %q", name, l)
			}
		}
		if len(lines) < 20 || len(lines) >= len(all[name]) {
			t.Errorf("%s: %d lines of the source's %d", name, len(lines), len(all[name]))
		}
	}
}

// changedLines counts the lines of b that a does not have.
func changedLines(a, b []string) (n int) {
	known := map[string]bool{}
	for _, l := range a {
		known[l] = true
	}
	for _, l := range b {
		if !known[l] {
			n++
		}
	}
	return n
}

// Of a source with changed rows only what follows from them differs.
func TestReplayOfChangedRows(t *testing.T) {
	source := sourceBundle(t)
	b, err := perfio.OpenBundle(source)
	if err != nil {
		t.Fatal(err)
	}
	original := replayed(t, source, true, nil)
	tp := &b.TPs[0]
	tp.Dense[700].TimeUS *= 1.5
	tp.Attention[4321].TimeUS *= 2
	skew := slices.IndexFunc(tp.Skew, func(r perfio.SkewRow) bool { return r.HasAlpha && r.N == 64 && r.PC == 64 })
	r := &tp.Skew[skew]
	r.TSkewUS = perfio.RoundDecimals(r.TSkewUS*1.1, 3) // alpha stays as it was: it no longer follows
	edited := filepath.Join(t.TempDir(), "bf16")
	if err := perfio.WriteBundle(edited, b); err != nil {
		t.Fatal(err)
	}
	dir := replayed(t, edited, true, nil)
	was, is := tables(t, original), tables(t, dir)
	changed := map[string]int{}
	for name := range was {
		if len(was[name]) != len(is[name]) {
			t.Errorf("%s: %d lines became %d", name, len(was[name]), len(is[name]))
		}
		changed[name] = changedLines(was[name], is[name])
	}
	want := map[string]int{
		perfio.DenseFile: 1, perfio.PerSequenceFile: 0, perfio.AttentionFile: 1, perfio.SkewFile: 1, perfio.SkewFitFile: 1,
	}
	if diff := cmp.Diff(want, changed); diff != "" {
		t.Errorf("changed lines (-want +got):\n%s", diff)
	}
	again, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := again.TPs[0].Skew[skew]
	if alpha := perfio.RoundDecimals((got.TSkewUS-got.TMeanUS)/(got.TMaxUS-got.TMeanUS), 4); got.TSkewUS != r.TSkewUS || got.Alpha != alpha {
		t.Errorf("the changed case came out as %+v, with an alpha of %v from its times", got, alpha)
	}
}

// Another number of samples changes no figure where there is no noise.
func TestReplayOfMoreIterations(t *testing.T) {
	source := sourceBundle(t)
	dir := replayed(t, source, true, func(o *profile.RunOptions) { o.Iterations = 4 })
	got, want := tables(t, dir), tables(t, source)
	for name, lines := range want {
		if !slices.Equal(got[name], lines) {
			t.Errorf("%s differs from the source's in %d lines", name, changedLines(lines, got[name]))
		}
	}
}

// Noise of a known size spreads the medians as theory says: those of 5 normal
// samples by 0.536 of one sample's deviation. The same seed gives the same
// bundle, another one another.
func TestReplayWithNoise(t *testing.T) {
	source := sourceBundle(t)
	attention := func(text string) []perfio.AttentionRow {
		dir := replayed(t, source+text, false, func(o *profile.RunOptions) {
			o.Iterations = 5
			o.AnchorEvery = -1 // noise is not drift
			o.PlanOptions.Only = []profile.Category{profile.Attention}
		})
		b, err := perfio.OpenBundle(dir)
		if err != nil {
			t.Fatal(err)
		}
		return b.TPs[0].Attention
	}
	b, err := perfio.OpenBundle(source)
	if err != nil {
		t.Fatal(err)
	}
	const noise = 0.02
	noisy := attention(",noise=0.02,seed=5")
	var mean, squares float64
	for i, r := range b.TPs[0].Attention {
		d := noisy[i].TimeUS/r.TimeUS - 1
		mean += d / float64(len(noisy))
		squares += d * d / float64(len(noisy))
	}
	if spread := math.Sqrt(squares) / noise; math.Abs(mean) > 0.001 || math.Abs(spread-0.536) > 0.02 {
		t.Errorf("medians of 5 are off by %v on the mean and spread by %v of the noise; expected 0 and 0.536", mean, spread)
	}
	if diff := cmp.Diff(noisy, attention(",noise=0.02,seed=5")); diff != "" {
		t.Error("the same seed gives another bundle")
	}
	if cmp.Equal(noisy, attention(",noise=0.02,seed=6")) {
		t.Error("another seed gives the same bundle")
	}
}
