package bundlemerge_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/layerprof/layerprof/internal/bundlemerge"
	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
)

// steps are the rows of a run in a mode: each batch stands twice.
func steps(mode string, depth int, decodes ...int) []perfio.StepRow {
	var out []perfio.StepRow
	for _, n := range decodes {
		for repeat := range 2 {
			r := bundletest.Bundle().TPs[0].Steps[0]
			r.Mode, r.Layers, r.NDecode, r.PaddedTokens, r.Steps, r.Spread = mode, depth, n, n, 1, 0
			r.StepUS, r.DeviceForwardUS = 1000+float64(10*n+repeat), 800+float64(n)
			out = append(out, r)
		}
	}
	return out
}

func withSteps(t *testing.T, dir string, blocks map[string]map[string]any, rows ...perfio.StepRow) *perfio.Bundle {
	t.Helper()
	b := bundletest.Bundle()
	b.Dir, b.TPs[0].Steps = dir, rows
	b.Meta.Delete("steps")
	for mode, block := range blocks {
		for key, value := range block {
			if err := b.Meta.Set(value, "steps", "per_tp", "1", mode, key); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b
}

// Parts that hold other modes, other depths and other batches of one run's make
// one table; a row that both hold is there once.
func TestStepsJoin(t *testing.T) {
	async, sync := steps(perfio.ModeGraphAsync, 4, 1, 2, 3), steps(perfio.ModeGraphSync, 4, 1, 2)
	half := steps(perfio.ModeGraphSync, 2, 1, 2)
	sizes := []int{1, 2, 4}
	a := withSteps(t, "a", map[string]map[string]any{perfio.ModeGraphAsync: {"layers": []int{4}, "rows": 4, "capture_sizes": sizes, "boot_seconds": []float64{9}}}, async[:4]...)
	b := withSteps(t, "b", map[string]map[string]any{
		perfio.ModeGraphAsync: {"layers": []int{4}, "rows": 4, "capture_sizes": sizes},
		perfio.ModeGraphSync:  {"layers": []int{4}, "rows": 4, "capture_sizes": sizes, "boot_seconds": []float64{7}},
	}, slices.Concat(async[2:], sync)...)
	c := withSteps(t, "c", map[string]map[string]any{perfio.ModeGraphSync: {"layers": []int{2}, "rows": 4, "capture_sizes": sizes}}, half...)
	got, err := bundlemerge.Merge([]*perfio.Bundle{a, b, c}, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Conflicts) != 0 {
		t.Errorf("conflicts %+v", got.Conflicts)
	}
	want := slices.Concat(sync, half, async)
	if diff := cmp.Diff(want, got.Bundle.TPs[0].Steps, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	m := got.Bundle.Meta
	for mode, want := range map[string]struct{ rows, depths int }{perfio.ModeGraphAsync: {6, 1}, perfio.ModeGraphSync: {8, 2}} {
		path := []string{"steps", "per_tp", "1", mode}
		if n := m.Int(append(path, "rows")...); n != want.rows {
			t.Errorf("%s: %d rows in meta.yaml, want %d", mode, n, want.rows)
		}
		if layers := m.Get(append(path, "layers")...); layers == nil || len(layers.Content) != want.depths {
			t.Errorf("%s: depths %+v, want %d", mode, layers, want.depths)
		}
		if !slices.Equal(m.CaptureSizes(1, mode), sizes) || m.Get(append(path, "boot_seconds")...) != nil {
			t.Errorf("%s: sizes %v, or the boots of one part", mode, m.CaptureSizes(1, mode))
		}
	}
	if a.TPs[0].Steps[0].Mode != perfio.ModeGraphAsync || len(a.TPs[0].Steps) != 4 {
		t.Error("a part was changed")
	}
}

// A step that takes another time in two parts is listed; parts whose engines ran
// steps in another way are refused.
func TestStepsDisagree(t *testing.T) {
	block := func(key string, value any) map[string]map[string]any {
		return map[string]map[string]any{perfio.ModeGraphSync: {"layers": []int{4}, key: value}}
	}
	rows := steps(perfio.ModeGraphSync, 4, 1, 2, 3, 4, 5, 6, 7, 8)
	a := withSteps(t, "a", block("cpu", "one"), rows...)
	other := slices.Clone(rows)
	other[5].StepUS *= 1.5 // the second of its batch
	b := withSteps(t, "b", block("cpu", "one"), other...)
	got, err := bundlemerge.Merge([]*perfio.Bundle{a, b}, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, c := range got.Conflicts {
		if c.Table == "step" && c.Line == 7 && c.Rows == 1 && c.AUS == rows[5].StepUS && c.BUS == other[5].StepUS {
			listed++
		} else if c.Rows == 1 {
			t.Errorf("%+v", c)
		}
	}
	if listed != 1 || got.Bundle.TPs[0].Steps[5].StepUS != rows[5].StepUS {
		t.Errorf("the step is listed %d times: %+v", listed, got.Conflicts)
	}
	for key, values := range map[string][2]any{
		"cpu": {"one", "two"}, "vllm_version": {"0.22.1", "0.32.0"}, "model_runner": {"V1", "V2"}, "async_scheduling": {false, true}, "capture_sizes": {[]int{1, 2}, []int{1, 4}},
	} {
		a, b := withSteps(t, "a", block(key, values[0]), rows...), withSteps(t, "b", block(key, values[1]), rows...)
		if _, err := bundlemerge.Merge([]*perfio.Bundle{a, b}, 0, false); err == nil || !strings.Contains(err.Error(), "b: steps.per_tp.1.graph_sync."+key+": found") {
			t.Errorf("%s: %v", key, err)
		}
		b.TPs[0].Steps = steps(perfio.ModeGraphAsync, 4, 1) // of another mode: nothing to hold against it
		if _, err := bundlemerge.Merge([]*perfio.Bundle{a, b}, 0, false); err != nil {
			t.Errorf("%s, of another mode: %v", key, err)
		}
	}
}
