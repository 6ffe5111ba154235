package profile

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
)

func defaultLimits() Limits {
	return Limits{MaxNumBatchedTokens: 2048, MaxNumSeqs: 256, BlockSize: 16}
}

func mustPlan(t *testing.T, limits Limits, arch *perfio.Architecture, opts PlanOptions) *Plan {
	t.Helper()
	plan, err := NewPlan(limits, arch, opts)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func shotCounts(plan *Plan) map[Category]int {
	counts := make(map[Category]int)
	for _, tp := range plan.TPs {
		for _, c := range tp.Categories {
			counts[c.Category] += len(c.Shots)
			counts["cases"] += len(c.Cases)
		}
	}
	return counts
}

func TestPlanCounts(t *testing.T) {
	moe := defaultLimits()
	moe.NumExperts, moe.TopK = 128, 8
	tests := []struct {
		name   string
		limits Limits
		opts   PlanOptions
		want   map[Category]int
	}{
		{"full", defaultLimits(), PlanOptions{},
			map[Category]int{Dense: 152, PerSequence: 40, Attention: 8643, Skew: 39027, "cases": 13009}},
		{"skip skew", defaultLimits(), PlanOptions{SkipSkew: true},
			map[Category]int{Dense: 152, PerSequence: 40, Attention: 8643, "cases": 0}},
		{"only attention", defaultLimits(), PlanOptions{Only: []Category{Attention}},
			map[Category]int{Attention: 8643, "cases": 0}},
		{"mixture of experts", moe, PlanOptions{Only: []Category{MoE}, TPs: []int{1, 2}},
			map[Category]int{MoE: 50, "cases": 0}},
		{"lean for an unknown kernel", defaultLimits(), PlanOptions{Kind: LeanPlan},
			map[Category]int{Dense: 2048, PerSequence: 256, Attention: 915, Batches: 532, "cases": 0}},
		{"lean for FlashAttention-3", defaultLimits(), PlanOptions{Kind: LeanPlan, Kernel: FlashAttention3, ValidationBatches: 320},
			map[Category]int{Dense: 2048, PerSequence: 256, Attention: 195, Batches: 160, Validation: 320, "cases": 0}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := shotCounts(mustPlan(t, test.limits, nil, test.opts))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("shots by category (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSummaryCountsRepeats(t *testing.T) {
	plan := mustPlan(t, defaultLimits(), nil, PlanOptions{ShareRepeats: true, Only: []Category{Attention, Skew}})
	s := plan.Summarize(0)
	if !s.EstimateIsGuess || s.EstimatedSeconds <= 0 {
		t.Errorf("estimate without a pace: %v s, guess %v", s.EstimatedSeconds, s.EstimateIsGuess)
	}
	shapes := make(map[string]bool)
	for _, c := range plan.TPs[0].Categories {
		for _, shot := range c.Shots {
			shapes[shot.Shape()] = true
		}
	}
	if s.TotalShots != 8643+39027 || s.UniqueShots != len(shapes) || s.MeasuredShots != len(shapes) {
		t.Errorf("summary %+v, expected %d total and %d unique", s, 8643+39027, len(shapes))
	}
	if s.Categories[0].UniqueShots != 8643 {
		t.Errorf("attention: %d unique, the grid has no repeats", s.Categories[0].UniqueShots)
	}
}

func TestPlanOrder(t *testing.T) {
	for order, want := range map[Order][]Group{
		EngineOrder:  {{3, 1, 512}, {5, 1, 128}, {1, 16, 64}},
		PrefillFirst: {{1, 16, 64}, {3, 1, 512}, {5, 1, 128}},
	} {
		c := newSkewCase(8, 0.375, 4, 16, 64, 128)
		if got := c.Shots(order)[2].Groups; !reflect.DeepEqual(got, want) {
			t.Errorf("order %s: %v, expected %v", order, got, want)
		}
	}
	shot := attentionShot(AttentionPoint{512, 1024, 4, 99}, EngineOrder)
	if got, want := shot.Shape(), "4x1@99,1x512@1024"; got != want {
		t.Errorf("mixed attention shot: %s, expected %s", got, want)
	}
}

func TestGrids(t *testing.T) {
	for _, test := range []struct {
		name      string
		got, want []int
	}{
		{"T(20)", tokenGrid(20), []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20}},
		{"T(66)", tokenGrid(66)[15:], []int{16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 66}},
		{"T(0)", tokenGrid(0), nil},
		{"G(8,16,2)", geometricGrid(8, 16, 2), []int{0}},
		{"G(100,16,2)", geometricGrid(100, 16, 2), []int{0, 16, 32, 64, 100}},
		// 121.5 is rounded to the even neighbour, and 182.25 follows from 121.5.
		{"G(200,16,1.5)", geometricGrid(200, 16, 1.5), []int{0, 16, 24, 36, 54, 81, 122, 182, 200}},
		{"G(6,1,1.2)", geometricGrid(4, 1, 1.2), []int{0, 1, 2, 3, 4}},
		{"D(2,20,2)", doublingGrid(2, 20, 2), []int{2, 4, 8, 16, 20}},
		{"D(128,100,2)", doublingGrid(128, 100, 2), []int{100}},
	} {
		if !reflect.DeepEqual(test.got, test.want) {
			t.Errorf("%s = %v, expected %v", test.name, test.got, test.want)
		}
	}
}

// Every boundary of the attention rule, on both of its sides.
func TestFeasibleAttention(t *testing.T) {
	limits := Limits{MaxNumBatchedTokens: 100, MaxNumSeqs: 8, MaxModelLen: 200, CacheTokens: 320, BlockSize: 16}
	for _, test := range []struct {
		point AttentionPoint
		want  bool
	}{
		{AttentionPoint{108, 0, 0, 0}, true},  // pc+nd = MNBT+MSQ
		{AttentionPoint{109, 0, 0, 0}, false}, //
		{AttentionPoint{0, 0, 8, 15}, true},   // nd = MSQ
		{AttentionPoint{16, 0, 8, 15}, false}, // the chunk is a sequence too
		{AttentionPoint{16, 0, 7, 15}, true},  //
		{AttentionPoint{99, 100, 0, 0}, true}, // pc+kp+1 = MML
		{AttentionPoint{100, 100, 0, 0}, false},
		{AttentionPoint{0, 0, 1, 198}, true}, // kd+2 = MML
		{AttentionPoint{0, 0, 1, 199}, false},
		{AttentionPoint{0, 0, 5, 63}, true}, // 5 x 64 tokens = the cache
		{AttentionPoint{0, 0, 5, 64}, false},
	} {
		if got := limits.feasibleAttention(test.point); got != test.want {
			t.Errorf("%+v: feasible %v, expected %v", test.point, got, test.want)
		}
	}
}

func TestStableLayersAtLowestDegree(t *testing.T) {
	arch := &perfio.Architecture{Catalog: []perfio.CatalogEntry{
		{Layer: "layernorm", Category: "dense", TPStable: true},
		{Layer: "qkv_proj", Category: "dense"},
		{Layer: "attention", Category: "attention"},
		{Layer: "moe", Category: "moe"},
	}}
	limits := defaultLimits()
	limits.NumExperts, limits.TopK = 8, 2
	plan := mustPlan(t, limits, arch, PlanOptions{TPs: []int{2, 1}, SkipSkew: true})
	got := make(map[int]map[Category]string)
	for _, tp := range plan.TPs {
		got[tp.TP] = make(map[Category]string)
		for _, c := range tp.Categories {
			got[tp.TP][c.Category] = strings.Join(c.Layers, " ")
		}
	}
	want := map[int]map[Category]string{
		1: {Dense: "layernorm qkv_proj", Attention: "attention", MoE: "moe"},
		2: {Dense: "qkv_proj", Attention: "attention"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("layers by degree and category (-want +got):\n%s", diff)
	}
}

func TestPlanRefusesOptions(t *testing.T) {
	for field, opts := range map[string]PlanOptions{
		"attention-kv-factor": {KVFactor: 1},
		"skew-n-factor":       {SkewNFactor: -2},
		"plan":                {Kind: "thin"},
		"attention-kernel":    {Kernel: "fa4"},
		"order":               {Order: "any"},
		"only":                {Only: []Category{"attenton"}},
		"tp":                  {TPs: []int{1, 1}},
		"attention-max-kv":    {MaxKV: -1},
	} {
		if _, err := NewPlan(defaultLimits(), nil, opts); err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("%s: error %v, expected one that names the field", field, err)
		}
	}
	if _, err := NewPlan(Limits{MaxNumSeqs: 1}, nil, PlanOptions{}); err == nil {
		t.Error("no error without max_num_batched_tokens")
	}
}

func TestRandomBatches(t *testing.T) {
	limits := Limits{MaxNumBatchedTokens: 2048, MaxNumSeqs: 256, MaxModelLen: 16384, CacheTokens: 300_000, BlockSize: 16}
	opts := PlanOptions{RandomBatches: 400, ValidationBatches: 400, Seed: 7, Only: []Category{Batches, Validation}}
	plan := mustPlan(t, limits, nil, opts)
	kinds := make(map[string]int)
	shapes := make(map[string]Category)
	for _, c := range plan.TPs[0].Categories {
		if len(c.Shots) != 400 {
			t.Errorf("%s: %d batches, expected 400", c.Category, len(c.Shots))
		}
		for _, shot := range c.Shots {
			if reason := limits.Infeasible(shot.Groups); reason != "" {
				t.Errorf("%s: %s", shot.Shape(), reason)
			}
			for _, g := range shot.Groups {
				if g.Count < 1 || g.NewTokens < 1 || g.KVHistory < 0 {
					t.Errorf("%s: group %+v", shot.Shape(), g)
				}
			}
			kinds[perfio.KindOf(shot.Requests())]++
			if other, ok := shapes[shot.Shape()]; ok && other != c.Category {
				t.Errorf("%s stands in %s and %s", shot.Shape(), other, c.Category)
			}
			shapes[shot.Shape()] = c.Category
		}
	}
	want := map[string]int{"decode_skew": 160, "multi": 240, "mixed": 80, "prefill": 80, "mixed_skew": 160, "decode": 80}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
	again := mustPlan(t, limits, nil, opts)
	if diff := cmp.Diff(plan, again); diff != "" {
		t.Errorf("two plans of one seed differ:\n%s", diff)
	}
	opts.Seed = 8
	other := mustPlan(t, limits, nil, opts)
	if reflect.DeepEqual(plan.TPs, other.TPs) {
		t.Error("another seed gives the same batches")
	}
}

func TestKernelOf(t *testing.T) {
	for backend, want := range map[string]Kernel{
		"FlashAttention 3": FlashAttention3, "FLASH_ATTN_3": FlashAttention3, "fa3": FlashAttention3, "flash-attention-3": FlashAttention3,
		"FlashAttention 2": FlashAttention2, "flash-attention-2": FlashAttention2,
		"FLASH_ATTN": "", "FLASHINFER": "", "tiles": "", "": "",
	} {
		if got := KernelOf(backend); got != want {
			t.Errorf("KernelOf(%q) = %q, expected %q", backend, got, want)
		}
	}
}

// A rank of tp2 runs what lookups take from tp1 on other shapes: its random
// batches leave that out.
func TestBatchesHoldOwnLayers(t *testing.T) {
	arch, err := perfio.LoadArchitecture("qwen3_moe")
	if err != nil {
		t.Fatal(err)
	}
	plan := mustPlan(t, Limits{MaxNumBatchedTokens: 2048, MaxNumSeqs: 256, MaxModelLen: 32768, BlockSize: 16, NumExperts: 128, TopK: 8}, arch,
		PlanOptions{TPs: []int{1, 2}, Only: []Category{Batches, Validation}, RandomBatches: 2, ValidationBatches: 2})
	for _, tp := range plan.TPs {
		for _, c := range tp.Categories {
			for _, layer := range []string{"sampler", "qk_norm", "moe"} {
				if got := slices.Contains(c.Layers, layer); got != (tp.TP == 1) {
					t.Errorf("tp%d %s: %s measured: %v", tp.TP, c.Category, layer, got)
				}
			}
			if !slices.Contains(c.Layers, "attention") || !slices.Contains(c.Layers, "lm_head") {
				t.Errorf("tp%d %s: found %v", tp.TP, c.Category, c.Layers)
			}
		}
	}
}
