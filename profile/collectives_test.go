package profile

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
)

// ranksDriver is a fake driver whose engine has as many ranks as the degree: the
// first is slower by a quarter, and every dense layer ends with an all-reduce.
type ranksDriver struct{ *fakeDriver }

func (d ranksDriver) Measure(ctx context.Context, shots []Shot, o MeasureOptions, yield func(Result) error) error {
	return d.fakeDriver.Measure(ctx, shots, o, func(r Result) error {
		shot := &shots[r.Index]
		for i := range r.Layers {
			us := r.Layers[i].SamplesUS[0]
			r.Layers[i].RanksUS = []float64{us, us / 1.25}
		}
		add := func(layer, kind string, rows int, us float64) {
			c := CollectiveResult{Layer: layer, Kind: kind, Rows: rows, Bytes: 2 * rows, Ranks: 2, Calls: 1, By: "kernel"}
			for n := range o.Iterations {
				c.SamplesUS, c.WaitUS = append(c.SamplesUS, us+float64(n)), append(c.WaitUS, float64(2*n))
			}
			r.Collectives = append(r.Collectives, c)
		}
		add("qkv_proj", "all_reduce", shot.Tokens(), float64(10+shot.Tokens()))
		add("lm_head", "all_gather", shot.Sequences(), float64(20+shot.Sequences()))
		add("", "broadcast", 1, 1) // outside all layers: in no table
		return yield(r)
	})
}

func TestCollectives(t *testing.T) {
	device, dir := newFakeDevice(), t.TempDir()
	opts := shardOptions(t, device, dir, 0, 0)
	opts.TPs, opts.Spec.TPMode, opts.PlanOptions.TPs, opts.PlanOptions.RealTP = []int{2}, RealTP, []int{2}, true
	options := opts.PlanOptions
	opts.Plan = func(tp int, e *Engine) (TPPlan, error) { return NewTPPlan(tp, e.Limits, testArchitecture, options) }
	opts.Open = func() (Driver, error) {
		return ranksDriver{&fakeDriver{device: device}}, nil
	}
	mustRun(t, opts)
	b, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	tp := b.TP(2)
	want := 0
	for _, tokens := range tokenGrid(64) {
		want++
		row := perfio.CollectiveRow{Layer: "qkv_proj", Collective: "all_reduce", Tokens: tokens, Ranks: 2, Bytes: 2 * tokens, Calls: 1,
			TimeUS: float64(11 + tokens), WaitUS: 2} // the medians of three samples
		if found := findCollective(tp, row.Layer, tokens); !cmp.Equal(found, row) {
			t.Errorf("found %+v, expected %+v", found, row)
		}
	}
	for _, sequences := range tokenGrid(8) {
		want++
		if found := findCollective(tp, "lm_head", sequences); found.Collective != "all_gather" || found.TimeUS != float64(21+sequences) {
			t.Errorf("%+v", found)
		}
	}
	if len(tp.Collectives) != want {
		t.Errorf("%d rows, expected %d", len(tp.Collectives), want)
	}
	for _, batch := range tp.Batches {
		tokens := 0
		for _, q := range batch.Requests {
			tokens += q.NewTokens
		}
		want := map[string]float64{"qkv_proj": float64(11 + tokens), "lm_head": float64(21 + len(batch.Requests))}
		if !cmp.Equal(batch.CollectivesUS, want) {
			t.Errorf("batch %v: found %v, expected %v", batch.Requests, batch.CollectivesUS, want)
		}
	}
	if len(tp.Batches) == 0 {
		t.Error("no batches")
	}
	// Layers that an emulated degree copies are measured.
	if n := len(tp.PerSequence); n != 2*len(tokenGrid(8)) {
		t.Errorf("%d per_sequence rows, expected those of lm_head and sampler", n)
	}
	ranks := b.Meta.Get("telemetry", "ranks")
	if ranks == nil || len(ranks.Content) != 2 || ranks.Content[0].Value != "1.25" || ranks.Content[1].Value != "1.0" {
		t.Errorf("telemetry.ranks: %+v", ranks)
	}
	// The largest random batch decides the most bytes.
	if sizes := b.Meta.Get("telemetry", "collective_bytes", "all_reduce by kernel"); sizes == nil || len(sizes.Content) != 2 || sizes.Content[0].Value != "2" {
		t.Errorf("telemetry.collective_bytes: %+v", sizes)
	}
	if b.Meta.TPMode() != perfio.TPModeReal || b.Meta.Int("engine_effective", "tensor_parallel_size") != 2 ||
		b.Meta.Int("engine_effective", "hf_overrides", "vocab_size") != 1024 {
		t.Errorf("meta.yaml: tp_mode %s, engine_effective %v", b.Meta.TPMode(), b.Meta.Get("engine_effective"))
	}
}

// Real and emulated degrees do not share a bundle, whatever their degrees.
func TestTPModesStandApart(t *testing.T) {
	dir := t.TempDir()
	mustRun(t, testOptions(t, newFakeDevice(), dir))
	opts := testOptions(t, newFakeDevice(), dir)
	opts.TPs, opts.Spec.TPMode, opts.OnChange = []int{2}, RealTP, KeepOnChange
	_, err := Run(t.Context(), opts)
	if err == nil || !strings.Contains(err.Error(), "meta.yaml: tp_mode: found emulated, expected real") {
		t.Errorf("%v", err)
	}
}

func findCollective(tp *perfio.TP, layer string, tokens int) (found perfio.CollectiveRow) {
	for _, row := range tp.Collectives {
		if row.Layer == layer && row.Tokens == tokens {
			found = row
		}
	}
	return found
}
