package profile

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
)

func TestPlanFileRoundTrip(t *testing.T) {
	limits := defaultLimits()
	limits.NumExperts, limits.TopK = 16, 2
	for name, opts := range map[string]PlanOptions{
		"full":          {TPs: []int{1, 2}},
		"lean":          {Kind: LeanPlan, ValidationBatches: 5},
		"lean fa3":      {Kind: LeanPlan, Kernel: FlashAttention3, Seed: 3},
		"prefill first": {Order: PrefillFirst, RandomBatches: 20},
	} {
		t.Run(name, func(t *testing.T) {
			plan := mustPlan(t, limits, nil, opts)
			var file bytes.Buffer
			if _, err := plan.WriteTo(&file); err != nil {
				t.Fatal(err)
			}
			back, err := ReadPlan(&file, "shots.jsonl", limits, nil, PlanOptions{Order: opts.Order})
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(plan.TPs, back.TPs) {
				t.Errorf("plan read back (-written +read):\n%.2000s", cmp.Diff(plan.TPs, back.TPs))
			}
		})
	}
}

func TestPlanFileEdited(t *testing.T) {
	text := `{"tp":1,"category":"dense","tokens":100,"layers":["qkv_proj"]}
{"tp":1,"category":"dense","tokens":7}

{"tp":2,"category":"attention","point":{"prefill_chunk":1,"kv_prefill":64,"n_decode":0,"kv_decode":0}}
{"tp":1,"category":"batches","requests":[[1,10],[1,10],[512,0],[100,8]]}
`
	arch := &perfio.Architecture{Catalog: []perfio.CatalogEntry{
		{Layer: "qkv_proj", Category: "dense"}, {Layer: "o_proj", Category: "dense"}, {Layer: "attention", Category: "attention"}}}
	plan, err := ReadPlan(strings.NewReader(text), "shots.jsonl", defaultLimits(), arch, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dense := plan.TPs[0].Categories[0]
	if diff := cmp.Diff([][]string{{"qkv_proj"}, {"qkv_proj", "o_proj"}}, [][]string{dense.LayersOf(0), dense.LayersOf(1)}); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	if got, want := plan.TPs[0].Categories[1].Shots[0].Shape(), "2x1@10,1x512@0,1x100@8"; got != want {
		t.Errorf("batch %s, expected %s", got, want)
	}
	attention := plan.TPs[1].Categories[0]
	if attention.Shots[0].Point.PrefillChunk != 1 || attention.Layers[0] != "attention" {
		t.Errorf("attention of tp2: %+v", attention)
	}
	only, err := ReadPlan(strings.NewReader(text), "shots.jsonl", defaultLimits(), arch, PlanOptions{TPs: []int{1}, Only: []Category{Batches}})
	if err != nil || len(only.TPs) != 1 || len(only.TPs[0].Categories) != 1 {
		t.Errorf("only batches of tp1: %+v, %v", only, err)
	}
}

func TestPlanFileErrors(t *testing.T) {
	for _, test := range []struct{ name, line, want string }{
		{"no JSON", `{"tp":1`, "shots.jsonl:2: unexpected EOF"},
		{"unknown field", `{"tp":1,"category":"dense","token":5}`, `unknown field "token"`},
		{"two on a line", `{"tp":1,"category":"dense","tokens":5} {}`, "expected one a line"},
		{"no tp", `{"category":"dense","tokens":5}`, "tp: found 0"},
		{"no such category", `{"tp":1,"category":"dens","tokens":5}`, "one of the categories"},
		{"wrong field", `{"tp":1,"category":"dense","tokens":5,"experts":4}`, "dense: expected tokens and nothing else"},
		{"no field", `{"tp":1,"category":"attention"}`, "attention: expected a point"},
		{"twice", `{"tp":1,"category":"dense","tokens":3}`, "stands on line 1 already"},
		{"infeasible", `{"tp":1,"category":"dense","tokens":5000}`, "beyond the engine's limits: 5000 tokens, the engine takes 2304"},
		{"history without a chunk", `{"tp":1,"category":"attention","point":{"prefill_chunk":0,"kv_prefill":5,"n_decode":1,"kv_decode":1}}`, "a history without"},
		{"skew of one", `{"tp":1,"category":"skew","case":{"n":8,"nb":8,"skew":4,"kvs":128}}`, "1 <= nb < n"},
		{"no new token", `{"tp":1,"category":"batches","requests":[[0,5]]}`, "requests: found [0,5]"},
		{"huge", `{"tp":1,"category":"batches","requests":[[1,5000000000]]}`, "expected at most 1000000000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := `{"tp":1,"category":"dense","tokens":3}` + "\n" + test.line + "\n"
			_, err := ReadPlan(strings.NewReader(text), "shots.jsonl", defaultLimits(), nil, PlanOptions{})
			if err == nil || !strings.Contains(err.Error(), "shots.jsonl:2: ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, expected shots.jsonl:2: and %q", err, test.want)
			}
		})
	}
}

func FuzzReadPlan(f *testing.F) {
	plan, err := NewPlan(Limits{MaxNumBatchedTokens: 32, MaxNumSeqs: 4}, nil, PlanOptions{RandomBatches: 3, MaxKV: 64})
	if err != nil {
		f.Fatal(err)
	}
	var seed bytes.Buffer
	if _, err := plan.WriteTo(&seed); err != nil {
		f.Fatal(err)
	}
	for _, line := range bytes.SplitAfter(seed.Bytes(), []byte("\n")) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		plan, err := ReadPlan(bytes.NewReader(text), "f", defaultLimits(), nil, PlanOptions{})
		if err != nil {
			return
		}
		var file bytes.Buffer
		if _, err := plan.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		back, err := ReadPlan(&file, "f", defaultLimits(), nil, PlanOptions{})
		if err != nil {
			t.Fatalf("what was accepted is not read again: %v", err)
		}
		if diff := cmp.Diff(plan, back); diff != "" {
			t.Error(diff)
		}
	})
}
