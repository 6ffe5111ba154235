package profile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/profile/replay"
)

const references = "../../shared/reference"

// referenceBundle is a bundle that was measured, or the test skips.
func referenceBundle(t testing.TB, path string) string {
	t.Helper()
	dir := filepath.Join(references, path)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no reference data: %v", err)
	}
	return dir
}

var referenceBundles = []string{
	"perf/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16",
	"perf/RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16",
	"h200/perf/H200/meta-llama/Llama-3.1-8B/bf16",
}

// replayOptions run a bundle's own rows through the replay driver.
func replayOptions(t testing.TB, source, faults, dir string) profile.RunOptions {
	t.Helper()
	bundle, err := perfio.OpenBundle(source)
	if err != nil {
		t.Fatal(err)
	}
	options, err := replay.Parse(source + faults)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := replay.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	arch, err := perfio.LoadArchitecture(bundle.Meta.Architecture())
	if err != nil {
		t.Fatal(err)
	}
	model, err := perfio.LoadModelConfig(bundle.Meta.Model())
	if err != nil {
		t.Fatal(err)
	}
	var tps []int
	for _, tp := range bundle.TPs {
		tps = append(tps, tp.Degree)
	}
	plan, err := profile.PlanOptions{TPs: tps}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	limits := bundle.Meta.Limits()
	return profile.RunOptions{
		Dir: dir, Hardware: bundle.Meta.Hardware(), Variant: bundle.Meta.Variant(),
		Open: func() (profile.Driver, error) { return opened.NewDriver(), nil },
		Spec: profile.EngineSpec{
			Model: model, Architecture: arch, DType: "bfloat16",
			MaxNumBatchedTokens: limits.MaxNumBatchedTokens, MaxNumSeqs: limits.MaxNumSeqs,
		},
		TPs: tps, PlanOptions: plan, Deadline: 5 * time.Second, ProfilerVersion: "test",
		Plan: func(tp int, e *profile.Engine) (profile.TPPlan, error) {
			opts := plan
			opts.TPs = []int{tp}
			p, err := profile.NewPlanFromBundle(bundle, e.Limits, arch, opts)
			if err != nil {
				return profile.TPPlan{}, err
			}
			return p.TPs[0], nil
		},
	}
}

func run(t *testing.T, opts profile.RunOptions) *profile.Report {
	t.Helper()
	report, err := profile.Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// compareFiles compares every table of a source with the one that was written.
func compareFiles(t *testing.T, source, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(source, "tp*", "*.csv"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no tables in %s: %v", source, err)
	}
	for _, name := range names {
		relative, _ := filepath.Rel(source, name)
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, relative))
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from the source's: %d bytes, expected %d", relative, len(got), len(want))
		}
	}
}

func TestReplayIsTheSource(t *testing.T) {
	for _, path := range referenceBundles {
		t.Run(path, func(t *testing.T) {
			if testing.Short() && path != h200 {
				t.Skip("a large bundle")
			}
			source, dir := referenceBundle(t, path), t.TempDir()
			report := run(t, replayOptions(t, source, "", dir))
			if report.Partial() || report.Infeasible > 0 {
				t.Errorf("report %+v", report)
			}
			compareFiles(t, source, dir)
			want, err := perfio.OpenBundle(source, perfio.Only())
			if err != nil {
				t.Fatal(err)
			}
			got, err := perfio.OpenBundle(dir, perfio.Only())
			if err != nil {
				t.Fatal(err)
			}
			if want.Meta.SkewStatistic() != got.Meta.SkewStatistic() || want.Meta.MeasurementIterations() != got.Meta.MeasurementIterations() {
				t.Errorf("skew_statistic %s over %d runs, expected %s over %d", got.Meta.SkewStatistic(), got.Meta.MeasurementIterations(),
					want.Meta.SkewStatistic(), want.Meta.MeasurementIterations())
			}
			if got.Meta.Origin() != perfio.OriginReplayed {
				t.Errorf("origin %s", got.Meta.Origin())
			}
		})
	}
}
