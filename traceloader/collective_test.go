package traceloader_test

import (
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// realBundle is the clean bundle as engines of as many ranks would give it.
func realBundle(t *testing.T) *perfio.Bundle {
	t.Helper()
	b := bundletest.Bundle()
	for key, value := range map[string]string{"tp_mode": perfio.TPModeReal, "model": "Qwen/Qwen3-30B-A3B-Instruct-2507"} {
		if err := b.Meta.Set(value, key); err != nil {
			t.Fatal(err)
		}
	}
	two := b.TP(2)
	two.Collectives = append(bundletest.Collectives(),
		perfio.CollectiveRow{Layer: "moe", Collective: "all_gather", Tokens: 16, Ranks: 2, Bytes: 64, Calls: 2, TimeUS: 3})
	for _, row := range b.TP(1).MoE {
		row.TimeUS /= 2
		two.MoE = append(two.MoE, row)
	}
	for i := range two.Dense {
		if two.Dense[i].Layer == "layernorm" { // tp_stable, and here its own all the same
			two.Dense[i].TimeUS += 1
		}
	}
	return b
}

func TestCollective(t *testing.T) {
	table, err := traceloader.New(realBundle(t), traceloader.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		layer  string
		tokens int
		want   int64
	}{
		{"o_proj", 16, 9000},
		{"o_proj", 9, 8000 + 9000/16}, // between two rows
		{"moe", 16, 9000 + 2*3000},    // all that follows one call
		{"lm_head", 4, 14000},
	} {
		curve, ok := table.Collective(2, test.layer)
		if ns, found := curve.LatencyNS(test.tokens); !ok || !found || ns != test.want {
			t.Errorf("%s, %d: found %d ns, %v, expected %d", test.layer, test.tokens, ns, found, test.want)
		}
	}
	for _, none := range []struct {
		tp    int
		layer string
	}{{1, "o_proj"}, {2, "qkv_proj"}, {4, "o_proj"}} {
		if curve, ok := table.Collective(none.tp, none.layer); ok {
			ns, _ := curve.LatencyNS(1)
			t.Errorf("tp%d %s: found %d ns, expected none", none.tp, none.layer, ns)
		}
	}
}

// A step of a real degree is its layers, each the degree's own, and what ranks
// exchange after them; of an emulated one the layers alone.
func TestStepWithCollectives(t *testing.T) {
	real, emulated := realBundle(t), realBundle(t)
	if err := emulated.Meta.Set(perfio.TPModeEmulated, "tp_mode"); err != nil {
		t.Fatal(err)
	}
	emulated.TP(2).Collectives = nil
	batch := traceloader.NewBatch([]perfio.Request{{NewTokens: 16}})
	var steps [2]traceloader.Step
	var tables [2]*traceloader.Table
	for i, b := range []*perfio.Bundle{real, emulated} {
		table, err := traceloader.New(b, traceloader.Options{})
		if err != nil {
			t.Fatal(err)
		}
		tables[i] = table
		walk, err := table.Walk(2)
		if err != nil || !walk.Step(batch, &steps[i]) {
			t.Fatalf("step: %v", err)
		}
		answers, status := walk.Explain(batch, nil)
		if n := len(steps[i].Prologue) + len(steps[i].Block) + len(steps[i].Head); len(answers) != n || status == traceloader.Unanswered {
			t.Errorf("%d answers, %v, expected %d", len(answers), status, n)
		}
		if allocs := testing.AllocsPerRun(100, func() { walk.Step(batch, &steps[i]) }); allocs != 0 {
			t.Errorf("%v allocations a step", allocs)
		}
	}
	var sum int64
	layers := make(map[string]int64)
	for _, e := range steps[0].Block {
		sum += e.LatencyNS
		if e.Category == traceloader.CategoryCollective {
			layers["+"+e.Layer] += e.LatencyNS
		} else {
			layers[e.Layer] = e.LatencyNS
		}
	}
	if layers["+o_proj"] != 9000 || layers["+moe"] != 15000 || sum != steps[0].BlockNS {
		t.Errorf("%v, in all %d of %d", layers, sum, steps[0].BlockNS)
	}
	for _, e := range steps[1].Block {
		switch {
		case e.Category == traceloader.CategoryCollective:
			t.Errorf("an emulated step has a collective of %s", e.Layer)
		case e.Layer == "layernorm" && layers[e.Layer] != e.LatencyNS+1000:
			t.Errorf("layernorm: real %d ns, emulated %d, expected the degree's own and tp1's", layers[e.Layer], e.LatencyNS)
		case e.Layer == "moe" && layers[e.Layer] >= e.LatencyNS:
			t.Errorf("moe: real %d ns, emulated %d, expected half of tp1's", layers[e.Layer], e.LatencyNS)
		case e.Layer == "qkv_proj" && layers[e.Layer] != e.LatencyNS:
			t.Errorf("qkv_proj: real %d ns, emulated %d, expected the same", layers[e.Layer], e.LatencyNS)
		}
	}
}
