package perfio_test

import (
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

// referenceBundles are the measured bundles beside the repository.
var referenceBundles = []string{
	"../../shared/reference/perf/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16",
	"../../shared/reference/perf/RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16",
	"../../shared/reference/h200/perf/H200/meta-llama/Llama-3.1-8B/bf16",
}

func TestReadReferenceBundles(t *testing.T) {
	for _, dir := range referenceBundles {
		skipWithout(t, dir)
		b, err := perfio.OpenBundle(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range b.Warnings {
			t.Errorf("unexpected warning: %v", w)
		}
		for _, tp := range b.TPs {
			t.Logf("%s tp%d: %d dense, %d per sequence, %d attention, %d moe, %d skew, %d fit", dir, tp.Degree, len(tp.Dense), len(tp.PerSequence),
				len(tp.Attention), len(tp.MoE), len(tp.Skew), len(tp.SkewFit))
			if len(tp.Dense) == 0 || len(tp.PerSequence) == 0 || len(tp.Attention) == 0 || len(tp.Skew) == 0 {
				t.Errorf("%s tp%d: a table is empty", dir, tp.Degree)
			}
		}
	}
}

func skipWithout(t testing.TB, path string) {
	t.Helper()
	if !exists(path) {
		t.Skipf("%s is absent: the reference data is not beside this repository", path)
	}
}
