package traceloader

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
)

func TestNewBatch(t *testing.T) {
	for _, c := range []struct {
		name     string
		requests []perfio.Request
		want     Batch
	}{
		{"empty", nil, Batch{}},
		{"decodes", []perfio.Request{{NewTokens: 1, KVHistory: 10}, {NewTokens: 1, KVHistory: 15}},
			Batch{NDecode: 2, KVDecodeMean: 12, KVDecodeMax: 15, KVDecodeMin: 10, Tokens: 2, Sequences: 2}},
		{"mixed", []perfio.Request{{NewTokens: 100, KVHistory: 7}, {NewTokens: 1, KVHistory: 15}, {NewTokens: 20, KVHistory: 5}},
			Batch{PrefillChunk: 120, KVPrefill: 12, NDecode: 1, KVDecodeMean: 15, KVDecodeMax: 15, KVDecodeMin: 15, Tokens: 121, Sequences: 3}},
	} {
		got := NewBatch(c.requests)
		c.want.Requests = c.requests
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func TestStep(t *testing.T) {
	model := &perfio.ModelConfig{NumHiddenLayers: 3, NumExperts: 8, NumExpertsPerToken: 2}
	for _, c := range []struct {
		name  string
		model *perfio.ModelConfig
		moe   bool
		depth int
	}{{"sparse", model, true, 3}, {"dense", &perfio.ModelConfig{NumHiddenLayers: 5}, false, 5}} {
		t.Run(c.name, func(t *testing.T) {
			table := mustNew(t, toyBundle(1, 2), Options{Architecture: toyArch(), Model: c.model})
			walk, err := table.Walk(2)
			if err != nil {
				t.Fatal(err)
			}
			batch := NewBatch([]perfio.Request{{NewTokens: 9, KVHistory: 16}, {NewTokens: 1, KVHistory: 40}})
			var got Step
			if !walk.Step(batch, &got) {
				t.Fatal("no answer")
			}
			curve := func(c Curve, _ bool) int64 { ns, _ := c.LatencyNS(10); return ns }
			attention, _ := table.Attention(2)
			attentionNS, _ := attention.LatencyNS(9, 16, 1, 40)
			lmHead, _ := table.PerSequence(2, "lm_head")
			headNS, _ := lmHead.LatencyNS(2)
			norm := LayerLatency{"norm", "dense", 20000} // tp_stable: tp1's
			want := Step{
				Prologue: []LayerLatency{{"embedding", "dense", curve(table.Dense(2, "embedding"))}},
				Block:    []LayerLatency{norm, {"attention", "attention", attentionNS}, norm, {"mlp", "dense", curve(table.Dense(2, "mlp"))}},
				Head:     []LayerLatency{{"lm_head", "per_sequence", headNS}},
				Depth:    c.depth,
			}
			if c.moe {
				moe, _ := table.MoE()
				ns, _ := moe.LatencyNS(10, ExpectedExperts(10, 8, 2))
				want.Block[3] = LayerLatency{"moe", "moe", ns}
			}
			want.PrologueNS, want.HeadNS = want.Prologue[0].LatencyNS, headNS
			for _, l := range want.Block {
				want.BlockNS += l.LatencyNS
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if total, ok := got.TotalNS(); !ok || total != want.PrologueNS+int64(c.depth)*want.BlockNS+want.HeadNS {
				t.Errorf("total: got %d, %v", total, ok)
			}
			answers, worst := walk.Explain(batch, nil)
			if len(answers) != 6 || worst == Unanswered || answers[1].Status != Measured {
				t.Errorf("answers: %v, %+v", worst, answers)
			}
			// The same by coordinates alone.
			batch.Requests = nil
			var again Step
			if !walk.Step(batch, &again) || !cmp.Equal(got, again) {
				t.Errorf("by coordinates: %s", cmp.Diff(got, again))
			}
			if walk.Step(Batch{}, &again) {
				t.Error("an empty batch has a latency")
			}
		})
	}
}

func TestDepthUnknown(t *testing.T) {
	walk, err := mustNew(t, toyBundle(1), Options{Architecture: toyArch()}).Walk(1)
	if err != nil {
		t.Fatal(err)
	}
	var s Step
	// The number of experts is not known either, unless the batch says.
	batch := NewBatch([]perfio.Request{{NewTokens: 1, KVHistory: 40}})
	if walk.Step(batch, &s) {
		t.Error("found a latency for an unknown number of experts")
	}
	batch.ActivatedExperts = 4
	if !walk.Step(batch, &s) || s.BlockNS == 0 {
		t.Errorf("got %+v", s)
	}
	if total, ok := s.TotalNS(); ok || total != 0 {
		t.Errorf("total without a depth: %d", total)
	}
}

func TestWalkMissing(t *testing.T) {
	b := toyBundle(1)
	b.TPs[0].PerSequence = nil
	o := Options{Architecture: toyArch(), Model: &perfio.ModelConfig{NumHiddenLayers: 1}}
	if _, err := mustNew(t, b, o).Walk(1); err == nil || !strings.Contains(err.Error(), "[lm_head]") {
		t.Errorf("got %v, want an error that names lm_head", err)
	}
	o.Lenient = true
	table := mustNew(t, b, o)
	if _, err := table.Walk(1); err != nil {
		t.Error(err)
	}
	if skipped, err := table.Skipped(1); err != nil || !slices.Equal(skipped, []string{"lm_head"}) {
		t.Errorf("skipped: %v, %v", skipped, err)
	}
	if _, err := table.Walk(4); err == nil {
		t.Error("walked at an unknown degree")
	}
}

func TestExpectedExperts(t *testing.T) {
	for _, c := range [][4]int{{0, 8, 2, 0}, {1, 8, 2, 2}, {1, 128, 8, 8}, {10000, 128, 8, 128}, {4, 8, 8, 8}, {2, 8, 2, 4}, {3, 0, 0, 0}} {
		if got := ExpectedExperts(c[0], c[1], c[2]); got != c[3] {
			t.Errorf("%d tokens, top %d of %d: got %d, want %d", c[0], c[2], c[1], got, c[3])
		}
	}
}

func smallFS() fstest.MapFS {
	return fstest.MapFS{
		"b/meta.yaml":            {Data: []byte("hardware: TOY\nmodel: meta-llama/Llama-3.1-8B\nvariant: bf16\narchitecture: llama\n")},
		"b/tp1/dense.csv":        {Data: []byte("layer,tokens,time_us\nqkv_proj,1,2.5\nqkv_proj,9,4.5\nqkv_proj,9,5\n")},
		"b/tp1/attention.csv":    {Data: []byte("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,16,8\n0,0,1,32,10\n")},
		"b/tp1/per_sequence.csv": {Data: []byte("layer,sequences,time_us\nlm_head,1,400\n")},
	}
}

func TestOpenFS(t *testing.T) {
	var fsys fs.FS = smallFS()
	if _, err := OpenFS(fsys, "b", Options{}); err == nil || !strings.Contains(err.Error(), "b/tp1/dense.csv:4:") {
		t.Errorf("a duplicate key: got %v, want an error with its place", err)
	}
	table, err := OpenFS(fsys, "b", Options{Lenient: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Warnings()) == 0 {
		t.Error("no warning of the duplicate key")
	}
	c, _ := table.Dense(1, "qkv_proj")
	if ns, _ := c.LatencyNS(9); ns != 4500 {
		t.Errorf("got %d, want the first, 4500", ns)
	}
	if table.Model() == nil || table.Model().NumHiddenLayers != 32 || table.Architecture() == nil {
		t.Error("the shipped config and architecture were not found")
	}
}

// TestReferenceSteps walks a batch on the measured bundles.
func TestReferenceSteps(t *testing.T) {
	for name, layers := range map[string]int{llama: 9, qwen: 8} {
		table := mustNew(t, referenceBundle(t, name), Options{})
		for _, tp := range table.TPs() {
			walk, err := table.Walk(tp)
			if err != nil {
				t.Fatal(err)
			}
			var s Step
			if !walk.Step(NewBatch([]perfio.Request{{NewTokens: 300, KVHistory: 20}, {NewTokens: 1, KVHistory: 512}}), &s) {
				t.Fatal("no answer")
			}
			total, ok := s.TotalNS()
			if !ok || len(s.Prologue) != 1 || len(s.Block) != layers || len(s.Head) != 3 || total < 1e6 || total > 1e9 {
				t.Errorf("%s tp%d: %d, %v, %+v", name, tp, total, ok, s)
			}
		}
	}
}
