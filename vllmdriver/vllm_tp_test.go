//go:build linux

package vllmdriver

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/layerprof/layerprof/profile"
)

// realTP boots a small Llama on two ranks, each on a core of its own.
func realTP(t *testing.T, d *Driver) (profile.EngineSpec, *profile.Engine) {
	t.Helper()
	spec := tinyLlama(t, 256, 1024)
	spec.TP, spec.TPMode = 2, profile.RealTP
	return spec, bootVLLM(t, d, spec)
}

func realTPDriver(t *testing.T) *Driver {
	t.Helper()
	return newDriver(t, Options{Python: vllmPython(t), Env: []string{"VLLM_CPU_OMP_THREADS_BIND=0|1"}, LogPath: os.Getenv("LAYERPROF_TEST_ENGINE_LOG")})
}

func TestVLLMRealTP(t *testing.T) {
	d := realTPDriver(t)
	_, e := realTP(t, d)
	t.Logf("%v", e.Provenance["checks"])
	shots := []profile.Shot{
		{Groups: []profile.Group{{Count: 1, NewTokens: 128, KVHistory: 0}}},
		{Groups: []profile.Group{{Count: 8, NewTokens: 1, KVHistory: 64}}},
		{Groups: []profile.Group{{Count: 8, NewTokens: 1, KVHistory: 64}, {Count: 1, NewTokens: 200, KVHistory: 0}}},
	}
	err := d.Measure(t.Context(), shots, profile.MeasureOptions{Warmup: 2, Iterations: 5}, func(r profile.Result) error {
		t.Logf("shot %d: %s %s", r.Index, r.Status, r.Message)
		for _, l := range r.Layers {
			t.Logf("  %-16s %v", l.Layer, l.SamplesUS)
		}
		for _, c := range r.Collectives {
			t.Logf("  %-16s %s %d rows %d bytes %d ranks %d calls: %v us, waiting %v", c.Layer, c.Kind, c.Rows, c.Bytes, c.Ranks, c.Calls, c.SamplesUS, c.WaitUS)
		}
		t.Logf("  step %v unaccounted %v", r.StepUS, r.Unaccounted)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

var (
	_ = filepath.Join
	_ = slices.Contains[[]int]
	_ = strings.Contains
	_ = syscall.SIGKILL
)
