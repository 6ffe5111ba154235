package roofline

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/internal/hardware"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

func llama() *perfio.ModelConfig {
	return &perfio.ModelConfig{
		ID: "llama", ModelType: "llama", HiddenSize: 4096, IntermediateSize: 14336, NumHiddenLayers: 32,
		NumAttentionHeads: 32, NumKeyValueHeads: 8, HeadDim: 128, VocabSize: 128256,
		MaxPositionEmbeddings: 131072, TorchDType: "bfloat16",
	}
}

func sparse() *perfio.ModelConfig {
	return &perfio.ModelConfig{
		ID: "sparse", ModelType: "qwen3_moe", HiddenSize: 2048, IntermediateSize: 6144, MoEIntermediateSize: 768,
		NumHiddenLayers: 48, NumAttentionHeads: 32, NumKeyValueHeads: 4, HeadDim: 128, VocabSize: 151936,
		MaxPositionEmbeddings: 262144, NumExperts: 128, NumExpertsPerToken: 8, TorchDType: "bfloat16",
	}
}

// catalog is a block of each model's layers.
func catalog(moe bool) *perfio.Architecture {
	a := &perfio.Architecture{}
	add := func(layer, category, class, within string) {
		a.Catalog = append(a.Catalog, perfio.CatalogEntry{Layer: layer, Category: category, VLLM: []string{class}, Within: within})
	}
	add("embedding", "dense", "VocabParallelEmbedding", "")
	add("layernorm", "dense", "RMSNorm", "XDecoderLayer")
	add("qkv_proj", "dense", "QKVParallelLinear", "")
	add("rotary_emb", "dense", "RotaryEmbedding", "")
	add("attention", "attention", "Attention", "")
	add("o_proj", "dense", "RowParallelLinear", "XAttention")
	add("final_layernorm", "dense", "RMSNorm", "XForCausalLM")
	add("lm_head", "per_sequence", "LogitsProcessor", "")
	add("sampler", "per_sequence", "Sampler", "")
	a.Sequence.PreAttn = []string{"layernorm"}
	a.Sequence.PostAttn = []string{"layernorm"}
	if moe {
		add("qk_norm", "dense", "RMSNorm", "XAttention")
		add("moe", "moe", "XSparseMoeBlock", "")
		return a
	}
	add("gate_up_proj", "dense", "MergedColumnParallelLinear", "")
	add("act_fn", "dense", "SiluAndMul", "")
	add("down_proj", "dense", "RowParallelLinear", "XMLP")
	return a
}

func boot(t testing.TB, key string, spec profile.EngineSpec) *Driver {
	t.Helper()
	hw, ok := hardware.ByKey(key)
	if !ok {
		t.Fatalf("no hardware %s", key)
	}
	d, err := New(Options{Spec: hw})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Boot(context.Background(), spec); err != nil {
		t.Fatal(err)
	}
	return d
}

func engineSpec(m *perfio.ModelConfig) profile.EngineSpec {
	return profile.EngineSpec{
		Model: m, Architecture: catalog(m.NumExperts > 0), TP: 1, DType: "bfloat16", KVCacheDType: "auto",
		MaxNumBatchedTokens: 2048, MaxNumSeqs: 256,
	}
}

func measure(t testing.TB, d *Driver, o profile.MeasureOptions, shots ...profile.Shot) []profile.Result {
	t.Helper()
	var out []profile.Result
	if err := d.Measure(context.Background(), shots, o, func(r profile.Result) error { out = append(out, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func shot(groups ...profile.Group) profile.Shot { return profile.Shot{Groups: groups} }

func request(n, tokens, history int) profile.Group {
	return profile.Group{Count: n, NewTokens: tokens, KVHistory: history}
}

func TestMeasureGivesEveryLayerOnEveryDevice(t *testing.T) {
	shots := []profile.Shot{
		shot(request(1, 1, 16)), shot(request(256, 1, 16384)), shot(request(1, 2048, 0)),
		shot(request(64, 1, 1000), request(1, 512, 4096), request(2, 100, 0)),
		{Groups: []profile.Group{request(1, 300, 0)}, Experts: 16},
	}
	for _, hw := range hardware.All() {
		for _, m := range []*perfio.ModelConfig{llama(), sparse()} {
			d := boot(t, hw.Key, engineSpec(m))
			results := measure(t, d, profile.MeasureOptions{Iterations: 3}, shots...)
			again := measure(t, boot(t, hw.Key, engineSpec(m)), profile.MeasureOptions{Iterations: 3}, shots...)
			if diff := cmp.Diff(results, again); diff != "" {
				t.Errorf("%s %s: two drivers differ:\n%s", hw.Key, m.ID, diff)
			}
			for i, r := range results {
				if r.Index != i || r.Status != profile.OK || len(r.Layers) != len(catalog(m.NumExperts > 0).Catalog) {
					t.Fatalf("%s %s shot %d: %+v", hw.Key, m.ID, i, r)
				}
				for _, l := range r.Layers {
					v := l.SamplesUS[0]
					if len(l.SamplesUS) != 3 || v != l.SamplesUS[2] || !(v >= hw.LaunchUS) || v > 1e6 {
						t.Errorf("%s %s shot %d: %s takes %v", hw.Key, m.ID, i, l.Layer, l.SamplesUS)
					}
					var split float64
					for _, s := range l.KernelsUS {
						split += s[0]
					}
					if l.KernelsUS != nil && math.Abs(split-v) > 1e-9*v {
						t.Errorf("%s: kernels sum to %v of %v", l.Layer, split, v)
					}
				}
			}
		}
	}
}

func TestMeasureRestrictsLayers(t *testing.T) {
	d := boot(t, "H200", engineSpec(llama()))
	r := measure(t, d, profile.MeasureOptions{Iterations: 1, Layers: []string{"layernorm", "absent"}}, shot(request(1, 8, 0)))[0]
	if len(r.Layers) != 1 || r.Layers[0].Layer != "layernorm" || r.Layers[0].Calls != 2 {
		t.Errorf("got %+v, want layernorm alone, called twice", r.Layers)
	}
}

// A layer that has more to do never takes less time, and tensor parallelism
// never makes it longer.
func TestMoreWorkTakesLonger(t *testing.T) {
	layers := func(tp int, s profile.Shot) map[string]float64 {
		spec := engineSpec(llama())
		spec.TP = tp
		out := map[string]float64{}
		for _, l := range measure(t, boot(t, "RTXPRO6000", spec), profile.MeasureOptions{Iterations: 1}, s)[0].Layers {
			out[l.Layer] = l.SamplesUS[0]
		}
		return out
	}
	small, large, halved := layers(1, shot(request(1, 128, 0))), layers(1, shot(request(1, 2048, 0))), layers(2, shot(request(1, 2048, 0)))
	for name, v := range large {
		if name != "lm_head" && name != "sampler" && small[name] >= v {
			t.Errorf("%s: %v us at 128 tokens, %v at 2048", name, small[name], v)
		}
		if halved[name] > v {
			t.Errorf("%s: %v us at tp 1, %v at tp 2", name, v, halved[name])
		}
	}
}

func TestInfeasible(t *testing.T) {
	spec := engineSpec(llama())
	spec.MaxModelLen, spec.KVBlocks = 8192, 1000
	d := boot(t, "H200", spec)
	for _, tt := range []struct {
		shot   profile.Shot
		status profile.Status
		want   string
	}{
		{shot(request(1, 2304, 0)), profile.OK, ""},
		{shot(request(1, 2305, 0)), profile.Infeasible, "2305 tokens, the engine takes 2304"},
		{shot(request(1, 1, 8190)), profile.OK, ""},
		{shot(request(1, 1, 8191)), profile.Infeasible, "a sequence of 8192 tokens, max_model_len is 8192"},
		{shot(request(10, 1, 1599)), profile.OK, ""},
		{shot(request(10, 1, 1600)), profile.Infeasible, "16160 tokens of KV cache, the engine has 16000"},
		{shot(), profile.Failed, "the batch is empty"},
		{shot(request(1, 0, 5)), profile.Failed, "1x0@5 is no group of requests"},
		{shot(request(1, 1, -5)), profile.Failed, "1x1@-5 is no group of requests"},
	} {
		r := measure(t, d, profile.MeasureOptions{Iterations: 1}, tt.shot)[0]
		if r.Status != tt.status || r.Message != tt.want || (r.Status != profile.OK && r.Layers != nil) {
			t.Errorf("%s: %s %q, want %s %q", tt.shot.Shape(), r.Status, r.Message, tt.status, tt.want)
		}
	}
}

func TestBootLimits(t *testing.T) {
	hw, _ := hardware.ByKey("L4")
	d, err := New(Options{Spec: hw})
	if err != nil {
		t.Fatal(err)
	}
	e, err := d.Boot(context.Background(), engineSpec(sparse()))
	if err != nil {
		t.Fatal(err)
	}
	want := profile.Limits{MaxNumBatchedTokens: 2048, MaxNumSeqs: 256, MaxModelLen: 262144, BlockSize: 16, NumExperts: 128, TopK: 8}
	if diff := cmp.Diff(want, e.Limits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	if e.Origin != profile.Synthetic || e.SMCount != 58 || e.GPU != "NVIDIA L4" || len(e.Catalog) != 11 {
		t.Errorf("engine: %+v", *e)
	}
}

func TestBootErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*profile.EngineSpec)
		want   string
	}{
		{"not divisible", func(s *profile.EngineSpec) { s.TP = 3 }, "intermediate_size 14336 is not divisible by tp 3"},
		{"heads", func(s *profile.EngineSpec) { s.TP = 16 }, "num_key_value_heads 8 is not divisible by tp 16"},
		{"no rate", func(s *profile.EngineSpec) { s.DType = "fp8" }, "dtype fp8: the specification of A100 has no rate for it, only for bfloat16, float16, int8, tf32"},
		{"dtype", func(s *profile.EngineSpec) { s.DType = "bf16" }, `dtype: found "bf16", expected bfloat16`},
		{"cache dtype", func(s *profile.EngineSpec) { s.KVCacheDType = "tiny" }, `kv_cache_dtype: found "tiny"`},
		{"class", func(s *profile.EngineSpec) { s.Architecture.Catalog[2].VLLM = []string{"MambaMixer"} }, `layer qkv_proj: roofline has no model of class MambaMixer within ""; known are Layer`},
		{"row parallel", func(s *profile.EngineSpec) { s.Architecture.Catalog[5].Within = "" }, `layer o_proj: roofline has no model of class RowParallelLinear within ""`},
		{"category", func(s *profile.EngineSpec) { s.Architecture.Catalog[0].Category = "sparse" }, `layer embedding: unknown category "sparse"`},
		{"no experts", func(s *profile.EngineSpec) { s.Architecture = catalog(true) }, "layer moe: the model's config has 0 experts"},
		{"no model", func(s *profile.EngineSpec) { s.Model = nil }, "no model config"},
		{"no architecture", func(s *profile.EngineSpec) { s.Architecture = nil }, "no architecture"},
		{"tp 0", func(s *profile.EngineSpec) { s.TP = 0 }, "tp: found 0, expected at least 1"},
		{"limits", func(s *profile.EngineSpec) { s.MaxNumSeqs = 0 }, "max_num_seqs 0 must be at least 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hw, _ := hardware.ByKey("A100")
			d, err := New(Options{Spec: hw})
			if err != nil {
				t.Fatal(err)
			}
			spec := engineSpec(llama())
			tt.change(&spec)
			_, err = d.Boot(context.Background(), spec)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got  %v\nwant %s", err, tt.want)
			}
			if err := d.Measure(context.Background(), nil, profile.MeasureOptions{}, nil); err == nil {
				t.Error("Measure after a failed Boot: no error")
			}
		})
	}
}

func TestNewErrors(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("no specification: no error")
	}
	if _, err := New(Options{Spec: &hardware.Spec{Attention: "?"}}); err == nil {
		t.Error("unknown attention kernel: no error")
	}
}

func TestMeasureStops(t *testing.T) {
	d := boot(t, "H200", engineSpec(llama()))
	shots := []profile.Shot{shot(request(1, 1, 1)), shot(request(1, 1, 2))}
	stop := errors.New("stop")
	n := 0
	err := d.Measure(context.Background(), shots, profile.MeasureOptions{Iterations: 1}, func(profile.Result) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("yield's error: %v after %d results", err, n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err = d.Measure(ctx, shots, profile.MeasureOptions{Iterations: 1}, func(profile.Result) error { n++; return nil })
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("cancelled: %v after %d results", err, n)
	}
}

// The fingerprint changes with whatever changes times.
func TestFingerprint(t *testing.T) {
	base := func() (hardware.Spec, profile.EngineSpec) {
		hw, _ := hardware.ByKey("H100")
		return *hw, engineSpec(llama())
	}
	print := func(hw hardware.Spec, spec profile.EngineSpec) map[string]string {
		d, err := New(Options{Spec: &hw})
		if err != nil {
			t.Fatal(err)
		}
		e, err := d.Boot(context.Background(), spec)
		if err != nil {
			t.Fatal(err)
		}
		return e.Fingerprint
	}
	hw, spec := base()
	want := print(hw, spec)
	hw.Key, hw.MemoryGBPerS = "H100", 3000
	if cmp.Equal(want, print(hw, spec)) {
		t.Error("another bandwidth, the same fingerprint")
	}
	hw, spec = base()
	hw.PeakTFLOPS = map[string]float64{"bfloat16": 900}
	if cmp.Equal(want, print(hw, spec)) {
		t.Error("another rate, the same fingerprint")
	}
	hw, spec = base()
	spec.Model.VocabSize = 32000
	if cmp.Equal(want, print(hw, spec)) {
		t.Error("another model, the same fingerprint")
	}
	hw, spec = base()
	spec.KVCacheDType = "fp8"
	if cmp.Equal(want, print(hw, spec)) {
		t.Error("another cache type, the same fingerprint")
	}
	hw, spec = base()
	if diff := cmp.Diff(want, print(hw, spec)); diff != "" {
		t.Errorf("the same twice:\n%s", diff)
	}
}

func BenchmarkMeasure(b *testing.B) {
	d := boot(b, "RTXPRO6000", engineSpec(llama()))
	for _, c := range []struct {
		name string
		shot profile.Shot
	}{
		{"batch=decode64", shot(request(64, 1, 4096))},
		{"batch=mixed", shot(request(128, 1, 2048), request(1, 1024, 4096))},
		{"batch=skew", shot(request(32, 1, 8192), request(96, 1, 2048), request(1, 2048, 0))},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			shots := []profile.Shot{c.shot}
			for b.Loop() {
				if err := d.Measure(context.Background(), shots, profile.MeasureOptions{Iterations: 3, Layers: []string{"attention"}}, func(profile.Result) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
