package traceloader_test

import (
	"math"
	"slices"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// About two thirds of held-out points are within one sigma: single rows, and all
// rows of one number of experts.
func TestMoESigma(t *testing.T) {
	const dir = "../perf/H200/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16"
	bundle, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	var tp perfio.TP
	for i := range bundle.TPs {
		if bundle.TPs[i].Degree == 1 {
			tp = bundle.TPs[i]
		}
	}
	// Other tables are not needed, and would take their time.
	handle := func(rules traceloader.Rules, rows []perfio.MoERow) traceloader.MoE {
		b := &perfio.Bundle{Meta: bundle.Meta, TPs: []perfio.TP{{Degree: 1, MoE: rows}}}
		table, err := traceloader.New(b, traceloader.Options{Rules: rules})
		if err != nil {
			t.Fatal(err)
		}
		m, ok := table.MoE()
		if !ok {
			t.Fatal("no moe")
		}
		return m
	}
	for name, out := range map[string]func(a, b perfio.MoERow) bool{
		"rows":    func(a, b perfio.MoERow) bool { return a == b },
		"experts": func(a, b perfio.MoERow) bool { return a.ActivatedExperts == b.ActivatedExperts },
	} {
		n, within, two := 0, 0, 0
		for _, held := range tp.MoE {
			rest := slices.DeleteFunc(slices.Clone(tp.MoE), func(r perfio.MoERow) bool { return out(r, held) })
			e, ok := handle(traceloader.Accurate, rest).Estimate(held.Tokens, held.ActivatedExperts)
			if !ok || !(e.Sigma > 0) {
				t.Fatalf("%+v: %+v, %v", held, e, ok)
			}
			if e.Status != traceloader.Interpolated {
				continue
			}
			n++
			miss := math.Abs(held.TimeUS*1e3/float64(e.LatencyNS) - 1)
			if miss <= e.Sigma {
				within++
			}
			if miss <= 2*e.Sigma {
				two++
			}
		}
		t.Logf("%s: %d of %d held-out points within one sigma, %d within two", name, within, n, two)
		if share := float64(within) / float64(n); n < 20 || share < 0.5 || share > 0.95 {
			t.Errorf("%s: %d of %d held-out points within one sigma", name, within, n)
		}
	}
	held := tp.MoE[0]
	own, _ := handle(traceloader.Accurate, tp.MoE).Estimate(held.Tokens, held.ActivatedExperts)
	far, _ := handle(traceloader.Accurate, tp.MoE).Estimate(8*2048, 128)
	if own.Status != traceloader.Measured || own.Sigma > 0.02 || far.Status != traceloader.Extrapolated || far.Sigma < 0.1 {
		t.Errorf("a measured point %+v, one far beyond %+v", own, far)
	}
	if e, ok := handle(traceloader.Parity, tp.MoE).Estimate(100, 10); !ok || e.Sigma != 0 {
		t.Errorf("parity knows no errors: %+v", e)
	}
}
