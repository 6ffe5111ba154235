package profile_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

const h200 = "h200/perf/H200/meta-llama/Llama-3.1-8B/bf16"

// only restricts a run to some categories of its plan.
func only(opts profile.RunOptions, categories ...profile.Category) profile.RunOptions {
	whole := opts.Plan
	opts.Plan = func(tp int, e *profile.Engine) (profile.TPPlan, error) {
		p, err := whole(tp, e)
		p.Categories = slices.DeleteFunc(slices.Clone(p.Categories), func(c profile.CategoryPlan) bool {
			return !slices.Contains(categories, c.Category)
		})
		return p, err
	}
	return opts
}

func open(t *testing.T, dir string) *perfio.Bundle {
	t.Helper()
	b, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// errorsOf are |got/want - 1| of attention.csv's rows, sorted.
func errorsOf(t *testing.T, got, want *perfio.Bundle) []float64 {
	t.Helper()
	a, b := got.TPs[0].Attention, want.TPs[0].Attention
	if len(a) != len(b) {
		t.Fatalf("%d rows, expected %d", len(a), len(b))
	}
	list := make([]float64, len(a))
	for i := range a {
		list[i] = math.Abs(a[i].TimeUS/b[i].TimeUS - 1)
	}
	slices.Sort(list)
	return list
}

// A device that is 4% slower for hundreds of shots at a time: anchors find the
// undisturbed times within 0.5%, where a run without them is off by up to 4%.
func TestDriftIsTakenOut(t *testing.T) {
	source := referenceBundle(t, h200)
	want := open(t, source)
	for _, test := range []struct{ name, faults string }{
		{"exact samples", ",drift=0.04,seed=2"},
		{"0.3% noise", ",drift=0.04,seed=2,noise=0.003"},
		{"0.6% noise", ",drift=0.04,seed=2,noise=0.006"},
	} {
		t.Run(test.name, func(t *testing.T) {
			type errors struct{ median, mean float64 }
			figures := make(map[int]errors)
			for _, every := range []int{50, -1} {
				dir := t.TempDir()
				opts := only(replayOptions(t, source, test.faults, dir), profile.Attention)
				opts.AnchorEvery = every
				report := run(t, opts)
				list := errorsOf(t, open(t, dir), want)
				mean := 0.0
				for _, e := range list {
					mean += e / float64(len(list))
				}
				figures[every] = errors{list[len(list)/2], mean}
				t.Logf("anchors every %d: error p50 %.2f%%, p90 %.2f%%, max %.2f%%, mean %.2f%%; %d shots measured, %d of them again", every,
					100*list[len(list)/2], 100*list[len(list)*9/10], 100*list[len(list)-1], 100*mean, report.Measured, report.Redone)
			}
			with, without := figures[50], figures[-1]
			if with.median > 0.005 || without.mean < 3*with.mean || without.median <= with.median {
				t.Errorf("errors with anchors %+v, without %+v, expected a median of at most 0.005 with, and more without", with, without)
			}
		})
	}
}

// Noise shows in the figures as it should: the median of n samples of 2% has a
// standard error of about 1.2533 * 2% / sqrt(n).
func TestNoiseAndIterations(t *testing.T) {
	source := referenceBundle(t, h200)
	want := open(t, source)
	for _, n := range []int{3, 9} {
		dir := t.TempDir()
		opts := only(replayOptions(t, source, ",noise=0.02,seed=6", dir), profile.Attention)
		opts.Iterations, opts.TargetError, opts.AnchorEvery = n, -1, -1
		run(t, opts)
		list := errorsOf(t, open(t, dir), want)
		// The 0.683 quantile of |error| is one standard error.
		got, expected := list[int(0.683*float64(len(list)))], 1.2533*0.02/math.Sqrt(float64(n))
		t.Logf("%d samples: standard error %.2f%%, expected about %.2f%%", n, 100*got, 100*expected)
		if got < 0.8*expected || got > 1.1*expected {
			t.Errorf("%d samples: standard error %v, expected about %v", n, got, expected)
		}
		// More iterations than before: only the missing samples are taken.
		if n == 3 {
			opts = only(replayOptions(t, source, ",noise=0.02,seed=6", dir), profile.Attention)
			opts.Iterations, opts.TargetError, opts.AnchorEvery = 5, -1, -1
			run(t, opts)
			text, err := os.ReadFile(filepath.Join(dir, profile.JournalDir, "shots.jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			rows := len(want.TPs[0].Attention)
			if got := strings.Count(string(text), `"k":"shot"`); got != 2*rows {
				t.Errorf("%d records, expected two for each of %d shots", got, rows)
			}
			if got := strings.Count(string(text), ","); got < rows {
				t.Error("the journal is empty")
			}
		}
	}
}

// Sampling goes on until the median is known well enough, or to the maximum.
func TestAdaptiveSampling(t *testing.T) {
	source := referenceBundle(t, h200)
	counts := make(map[string]int)
	for _, test := range []struct{ name, faults string }{{"quiet", ",noise=0.002,seed=6"}, {"noisy", ",noise=0.05,seed=6"}} {
		dir := t.TempDir()
		opts := only(replayOptions(t, source, test.faults, dir), profile.PerSequence)
		opts.AnchorEvery = -1
		run(t, opts)
		text, err := os.ReadFile(filepath.Join(dir, profile.JournalDir, "shots.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		counts[test.name] = strings.Count(string(text), `"k":"shot"`)
	}
	if counts["quiet"] != 40 || counts["noisy"] <= 80 || counts["noisy"] > 120 {
		t.Errorf("calls %v, expected one for each of 40 quiet shots, and two to three for most noisy ones", counts)
	}
}

// A row that is changed in the source changes that row and what follows from
// it, and no other.
func TestOneRowChanged(t *testing.T) {
	source := referenceBundle(t, h200)
	changed := filepath.Join(t.TempDir(), "bf16")
	if err := os.CopyFS(changed, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	replaceIn(t, filepath.Join(changed, "tp1", "attention.csv"), "\r\n0,0,1,32,11.68\r\n", "\r\n0,0,1,32,12.34\r\n")
	replaceIn(t, filepath.Join(changed, "tp1", "skew.csv"), ",139.02,205.26,139.77,0.0113\n", ",139.02,205.26,172.14,0.5\n")
	dir, before := t.TempDir(), t.TempDir()
	run(t, replayOptions(t, changed, "", dir))
	run(t, replayOptions(t, source, "", before))
	for name, want := range map[string]int{"attention.csv": 1, "dense.csv": 0, "per_sequence.csv": 0, "skew.csv": 1, "skew_fit.csv": 1} {
		if got := differentLines(t, filepath.Join(dir, "tp1", name), filepath.Join(before, "tp1", name)); got != want {
			t.Errorf("%s: %d lines differ, expected %d", name, got, want)
		}
	}
	compareFiles(t, changed, dir)
}

func replaceIn(t *testing.T, name, old, new string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), old) != 1 {
		t.Fatalf("%s: %q stands there %d times", name, old, strings.Count(string(text), old))
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(text), old, new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func differentLines(t *testing.T, a, b string) (n int) {
	t.Helper()
	lines := func(name string) []string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(string(text), "\n")
	}
	x, y := lines(a), lines(b)
	if len(x) != len(y) {
		t.Errorf("%s: %d lines, expected %d", a, len(x), len(y))
		return -1
	}
	for i := range x {
		if x[i] != y[i] {
			n++
		}
	}
	return n
}

// The default plan, replayed, gives the source's rows of that plan and no
// others.
func TestDefaultPlanReplayed(t *testing.T) {
	if testing.Short() {
		t.Skip("a large bundle")
	}
	source := referenceBundle(t, referenceBundles[0])
	dir := t.TempDir()
	opts := replayOptions(t, source, "", dir)
	arch, plan := opts.Spec.Architecture, opts.PlanOptions
	opts.TPs, plan.TPs = []int{2}, []int{2}
	opts.Plan = func(tp int, e *profile.Engine) (profile.TPPlan, error) {
		return profile.NewTPPlan(tp, e.Limits, arch, plan)
	}
	report := run(t, opts)
	got, want := open(t, dir).TP(2), open(t, source).TP(2)
	rows := make(map[perfio.AttentionRow]bool)
	for _, row := range want.Attention {
		rows[row] = true
	}
	for _, row := range got.Attention {
		if !rows[row] {
			t.Fatalf("%+v is not the source's", row)
		}
	}
	if len(got.Attention) != 8643 || len(got.Skew) != 13009 || report.Infeasible != 0 {
		t.Errorf("%d attention rows, %d skew rows, %d infeasible, expected 8643, 13009, 0", len(got.Attention), len(got.Skew), report.Infeasible)
	}
	for i := range got.Skew {
		if got.Skew[i] != want.Skew[i] {
			t.Fatalf("skew row %d: %+v, expected %+v", i+1, got.Skew[i], want.Skew[i])
		}
	}
}

// What a run writes has no problem that perfcheck would name.
func TestWrittenBundleIsValid(t *testing.T) {
	source := referenceBundle(t, h200)
	dir := t.TempDir()
	run(t, replayOptions(t, source, "", dir))
	err := perfio.ValidateDir(dir, func(e *perfio.ParseError) bool {
		t.Error(e)
		return true
	})
	if err != nil {
		t.Error(err)
	}
	// meta.yaml keeps every key that the reference has, where one applies.
	got, want := open(t, dir).Meta, open(t, source).Meta
	for _, key := range []string{
		"vllm_version", "cuda_version", "gpu", "hardware", "profiled_at", "architecture", "model", "variant", "tp_degrees",
		"engine_effective", "attention_grid", "measurement_iterations", "skew_profile", "skew_fit",
	} {
		if got.Get(key) == nil || want.Get(key) == nil || got.Get(key).Kind != want.Get(key).Kind {
			t.Errorf("meta.yaml: %s is not as in the reference", key)
		}
	}
	if sum := got.Text("architecture_sha256"); len(sum) != 64 { // the other reference bundles have it
		t.Errorf("meta.yaml: architecture_sha256 is %q, expected a checksum", sum)
	}
}
