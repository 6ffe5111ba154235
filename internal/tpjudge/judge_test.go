package tpjudge_test

import (
	"math"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/internal/tpjudge"
	"github.com/layerprof/layerprof/perfio"
)

// bundle is the clean bundle of a model whose experts are known.
func bundle(t *testing.T) *perfio.Bundle {
	t.Helper()
	b := bundletest.Bundle()
	if err := b.Meta.Set("Qwen/Qwen3-30B-A3B-Instruct-2507", "model"); err != nil {
		t.Fatal(err)
	}
	return b
}

// realBundle is the clean bundle as an engine of two ranks would give it: with
// collectives, and an embedding that takes twice as long as the emulated one.
func realBundle(t *testing.T) *perfio.Bundle {
	t.Helper()
	b := bundle(t)
	b.Dir = "real"
	if err := b.Meta.Set(perfio.TPModeReal, "tp_mode"); err != nil {
		t.Fatal(err)
	}
	two := b.TP(2)
	two.MoE = b.TP(1).MoE // its own
	two.Collectives = bundletest.Collectives()
	two.Batches[0].MeasuredUS["attention"] *= 1.25
	two.Batches[0].CollectivesUS = map[string]float64{"o_proj": 3}
	for i := range two.Dense {
		if two.Dense[i].Layer == "embedding" {
			two.Dense[i].TimeUS *= 2
		}
	}
	return b
}

func TestCompare(t *testing.T) {
	real, emulated := realBundle(t), bundle(t)
	r, err := tpjudge.Compare(real, emulated)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range r.Layers {
		want := 1.0
		if g.Layer == "embedding" && g.TP == 2 {
			want = 0.5
		}
		if math.Abs(g.Ratio-want) > 1e-9 {
			t.Errorf("tp%d %s: %v, expected %v", g.TP, g.Layer, g.Ratio, want)
		}
	}
	if len(r.Degrees) != 1 || r.Degrees[0].TP != 2 || len(r.Degrees[0].Collectives) != len(bundletest.Collectives()) {
		t.Fatalf("%+v", r.Degrees)
	}
	d := r.Degrees[0]
	if c := d.Collectives[0]; c.Layer != "embedding" || c.TimeUS != 8+1.0/16 || c.GBPerSecond != 256/c.TimeUS/1e3 {
		t.Errorf("%+v", c)
	}
	if len(d.Steps) == 0 || d.Blocks != 48 || d.Unanswered != 0 {
		t.Fatalf("%+v", d)
	}
	attention, reduced := 48*1.25*7.5, 48*3.0
	if b := d.Batches; b == nil || b.N != 1 || math.Abs(b.P50-1/1.25) > 1e-12 || math.Abs(b.CollectivesShare-reduced/(attention+reduced)) > 1e-12 {
		t.Errorf("%+v", b)
	}
	for _, s := range d.Steps {
		// embedding once, o_proj and moe in each block; lm_head by sequences. Lookups
		// round to nanoseconds, block by block.
		sequences := 1
		if s.Kind == "decode" {
			sequences = s.Tokens
		}
		reduce, gather := 8+float64(s.Tokens)/16, 10+float64(sequences)
		want := reduce + 2*float64(d.Blocks)*reduce + gather
		if math.Abs(s.CollectivesUS-want) > 0.1 {
			t.Errorf("%s of %d: collectives %v us, expected %v", s.Kind, s.Tokens, s.CollectivesUS, want)
		}
		extra := s.LayersUS - s.EmulatedUS // the embedding's other half
		if extra <= 0 || math.Abs(s.Whole-s.EmulatedUS/(s.LayersUS+s.CollectivesUS)) > 1e-12 || s.Whole >= s.Layers {
			t.Errorf("%+v", s)
		}
	}
}

func TestCompareRefuses(t *testing.T) {
	other := bundle(t)
	if err := other.Meta.Set("another/model", "model"); err != nil {
		t.Fatal(err)
	}
	one := realBundle(t)
	one.TPs = one.TPs[:1]
	for _, test := range []struct {
		real, emulated *perfio.Bundle
		want           string
	}{
		{bundle(t), bundle(t), "tp_mode: found emulated, expected real"},
		{realBundle(t), realBundle(t), "tp_mode: found real, expected emulated"},
		{realBundle(t), other, "model: found another/model"},
		{one, bundle(t), "no degree above 1"},
	} {
		if _, err := tpjudge.Compare(test.real, test.emulated); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, expected %q", err, test.want)
		}
	}
}
