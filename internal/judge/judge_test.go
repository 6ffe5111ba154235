package judge

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/layerprof/layerprof/internal/accuracy"
	"github.com/layerprof/layerprof/perfio"
)

const reference = "../../../shared/reference"

func openReference(t *testing.T, path string) *perfio.Bundle {
	t.Helper()
	dir := filepath.Join(reference, path)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("reference data not present: %v", err)
	}
	b, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The harness finds the study's figures for parity (ACCURACY.md).
func TestParityAsInTheStudy(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute and more under the race detector")
	}
	long := os.Getenv("LAYERPROF_LONG") != ""
	for _, test := range []struct {
		path       string
		tp         int
		t1, t3, t4 [3]float64
	}{
		{"perf/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16", 1, [3]float64{1.09, 5.9, 12.4}, [3]float64{1.09, 11.7, 28}, [3]float64{3.95, 26.0, 44}},
		{"perf/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16", 2, [3]float64{1.10, 5.0, 10.8}, [3]float64{1.46, 10.7, 30}, [3]float64{3.29, 27.9, 40}},
		{"perf/RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16", 1, [3]float64{1.18, 5.7, 12.8}, [3]float64{1.96, 12.1, 29}, [3]float64{3.54, 28.8, 65}},
		{"perf/RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16", 2, [3]float64{2.20, 5.1, 11.8}, [3]float64{1.62, 11.0, 30}, [3]float64{2.89, 29.4, 54}},
	} {
		if !long && test.tp == 2 {
			continue
		}
		b := openReference(t, test.path)
		for _, tp := range b.TPs {
			if tp.Degree != test.tp {
				continue
			}
			d, ratios := accuracy.Normalize(b.Meta, accuracy.Data{Attention: tp.Attention, Skew: tp.Skew})
			t.Logf("%s tp%d: %+v", test.path, tp.Degree, ratios)
			results, err := accuracy.Run(d, parityRules{}, accuracy.Options{Tests: []string{"T1", "T3", "T4"}, TP: tp.Degree})
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range [][3]float64{test.t1, test.t3, test.t4} {
				r := results[i]
				t.Logf("%s n=%d %.2f/%.1f/%.1f want %v", r.Test, r.N, r.P50, r.P90, r.P99, want)
				for j, got := range []float64{r.P50, r.P90, r.P99} {
					if math.Abs(got-want[j]) > 0.02*want[j]+0.1 {
						t.Errorf("%s tp%d %s: %.2f, want %.2f", test.path, tp.Degree, r.Test, got, want[j])
					}
				}
			}
		}
	}
}
