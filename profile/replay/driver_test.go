package replay

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// smallBundle writes a bundle of two degrees and returns its folder.
func smallBundle(t testing.TB, change func(*perfio.Bundle)) string {
	t.Helper()
	meta := &perfio.Meta{}
	for _, kv := range []struct {
		value any
		path  []string
	}{
		{"H200", []string{"hardware"}},
		{"NVIDIA H200", []string{"gpu"}},
		{"meta-llama/Llama-3.1-8B", []string{"model"}},
		{"llama", []string{"architecture"}},
		{"bf16", []string{"variant"}},
		{2048, []string{"engine_effective", "max_num_batched_tokens"}},
		{256, []string{"engine_effective", "max_num_seqs"}},
		{16, []string{"engine_effective", "block_size"}},
		{3, []string{"measurement_iterations"}},
	} {
		if err := meta.Set(kv.value, kv.path...); err != nil {
			t.Fatal(err)
		}
	}
	b := &perfio.Bundle{Meta: meta}
	for _, tp := range []int{1, 2} {
		f := 1 / float64(tp)
		b.TPs = append(b.TPs, perfio.TP{
			Degree: tp,
			Dense: []perfio.DenseRow{
				{Layer: "layernorm", Tokens: 1, TimeUS: 2}, {Layer: "layernorm", Tokens: 64, TimeUS: 4 * f},
				{Layer: "qkv_proj", Tokens: 1, TimeUS: 10 * f}, {Layer: "qkv_proj", Tokens: 64, TimeUS: 20 * f},
			},
			PerSequence: []perfio.SequenceRow{{Layer: "sampler", Sequences: 1, TimeUS: 30}, {Layer: "sampler", Sequences: 4, TimeUS: 40 * f}},
			Attention: []perfio.AttentionRow{
				{NDecode: 2, KVDecode: 160, TimeUS: 11 * f}, {NDecode: 2, KVDecode: 512, TimeUS: 19 * f},
				{PrefillChunk: 64, TimeUS: 25 * f}, {PrefillChunk: 64, NDecode: 2, KVDecode: 160, TimeUS: 31 * f},
			},
			Skew: []perfio.SkewRow{{
				Regime: "pure", N: 2, NB: 1, Ratio: 0.5, Skew: 4, KVS: 64, KVBig: 256, KVMean: 160,
				TMeanUS: 33.5, TMaxUS: 43.5, TSkewUS: 38.5, Alpha: 0.5, HasAlpha: true,
			}},
			Batches: []perfio.BatchRow{{
				Requests:   []perfio.Request{{NewTokens: 1, KVHistory: 700}, {NewTokens: 32}, {NewTokens: 16, KVHistory: 5}},
				MeasuredUS: map[string]float64{"attention": 50 * f, "qkv_proj": 17 * f},
				KernelsUS:  map[string]float64{"flash": 45 * f, "cache_write": 5 * f},
			}},
		})
	}
	if change != nil {
		change(b)
	}
	dir := filepath.Join(t.TempDir(), "bf16")
	if err := perfio.WriteBundle(dir, b); err != nil {
		t.Fatal(err)
	}
	return dir
}

func llama() *perfio.Architecture {
	return &perfio.Architecture{ModelType: "llama", Catalog: []perfio.CatalogEntry{
		{Layer: "layernorm", Category: "dense", TPStable: true},
		{Layer: "qkv_proj", Category: "dense"},
		{Layer: "sampler", Category: "per_sequence", TPStable: true},
		{Layer: "attention", Category: "attention"},
	}}
}

func open(t testing.TB, o Options) *Source {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func boot(t testing.TB, s *Source, tp int, a *perfio.Architecture) (*Driver, *profile.Engine) {
	t.Helper()
	d := s.NewDriver()
	e, err := d.Boot(context.Background(), profile.EngineSpec{Architecture: a, TP: tp, DType: "bfloat16"})
	if err != nil {
		t.Fatal(err)
	}
	return d, e
}

func one(t testing.TB, d *Driver, o profile.MeasureOptions, s profile.Shot) profile.Result {
	t.Helper()
	var out []profile.Result
	if err := d.Measure(context.Background(), []profile.Shot{s}, o, func(r profile.Result) error { out = append(out, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(out) != 1 {
		t.Fatalf("%d results of one shot", len(out))
	}
	return out[0]
}

func shot(c profile.Category, groups ...profile.Group) profile.Shot {
	return profile.Shot{Category: c, Groups: groups}
}

func group(n, tokens, history int) profile.Group {
	return profile.Group{Count: n, NewTokens: tokens, KVHistory: history}
}

// times are the first samples by layer.
func times(r profile.Result) map[string]float64 {
	if r.Status != profile.OK {
		return nil
	}
	out := map[string]float64{}
	for _, l := range r.Layers {
		out[l.Layer] = l.SamplesUS[0]
	}
	return out
}

func TestMeasureAnswersFromEachFile(t *testing.T) {
	s := open(t, Options{Bundle: smallBundle(t, nil)})
	skew := &profile.SkewCase{N: 2, NB: 1, Ratio: 0.5, Skew: 4, KVS: 64, KVBig: 256, KVMean: 160}
	shots := skew.Shots(profile.EngineOrder)
	for _, tt := range []struct {
		name   string
		tp     int
		layers []string
		shot   profile.Shot
		want   map[string]float64
		reason string
	}{
		{"dense, all that there is", 1, nil, shot(profile.Dense, group(1, 64, 0)), map[string]float64{"layernorm": 4, "qkv_proj": 20, "attention": 25, "sampler": 30}, ""},
		{"dense", 2, []string{"qkv_proj"}, shot(profile.Dense, group(1, 64, 0)), map[string]float64{"qkv_proj": 10}, ""},
		{"tp_stable", 2, []string{"layernorm"}, shot(profile.Dense, group(1, 64, 0)), map[string]float64{"layernorm": 4}, ""},
		{"per sequence", 2, []string{"sampler"}, shot(profile.PerSequence, group(4, 1, 0)), map[string]float64{"sampler": 40}, ""},
		{"attention, decodes first", 1, []string{"attention"}, shot(profile.Attention, group(2, 1, 160), group(1, 64, 0)), map[string]float64{"attention": 31}, ""},
		{"attention, prefill first", 1, []string{"attention"}, shot(profile.Attention, group(1, 64, 0), group(2, 1, 160)), map[string]float64{"attention": 31}, ""},
		{"t_mean", 1, []string{"attention"}, shots[0], map[string]float64{"attention": 33.5}, ""},
		{"t_max", 2, []string{"attention"}, shots[1], map[string]float64{"attention": 43.5}, ""},
		{"t_skew", 1, []string{"attention"}, shots[2], map[string]float64{"attention": 38.5}, ""},
		{"the batch of t_mean as attention", 1, []string{"attention"}, shot(profile.Attention, shots[0].Groups...), map[string]float64{"attention": 11}, ""},
		{"batch", 2, nil, shot(profile.Batches, group(1, 1, 700), group(1, 32, 0), group(1, 16, 5)), map[string]float64{"attention": 25, "qkv_proj": 8.5}, ""},
		{"no such count", 1, []string{"qkv_proj"}, shot(profile.Dense, group(1, 32, 0)), nil, "the source has no row in tp1/dense.csv for layer qkv_proj at 32 tokens"},
		{"one layer of two", 1, []string{"layernorm", "o_proj"}, shot(profile.Dense, group(1, 64, 0)), nil, "layer o_proj is not in the catalog"},
		{"no such sequences", 2, []string{"sampler"}, shot(profile.PerSequence, group(3, 1, 0)), nil, "the source has no row in tp1/per_sequence.csv for layer sampler at 3 sequences"},
		{"no such attention", 2, []string{"attention"}, shot(profile.Attention, group(3, 1, 160)), nil, "the source has no row in tp2/attention.csv for prefill_chunk 0, kv_prefill 0, n_decode 3, kv_decode 160"},
		{"no row can hold it", 1, []string{"attention"}, shot(profile.Validation, group(1, 1, 9), group(1, 1, 10)), nil, "the source has no row in tp1/attention.csv for 1x1@9,1x1@10, which takes more than one prefill chunk or decode length"},
		{"no such case", 1, []string{"attention"}, (&profile.SkewCase{N: 4, NB: 1, Skew: 4, KVS: 64, KVBig: 256, KVMean: 112}).Shots(profile.EngineOrder)[0], nil, "the source has no row in tp1/skew.csv for n 4, nb 1, skew 4, pc 0, kp 0, kvs 64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := boot(t, s, tt.tp, llama())
			r := one(t, d, profile.MeasureOptions{Iterations: 3, Layers: tt.layers}, tt.shot)
			if diff := cmp.Diff(tt.want, times(r)); diff != "" {
				t.Errorf("%s %q (-want +got):\n%s", r.Status, r.Message, diff)
			}
			if want := profile.OK; tt.reason != "" {
				want = profile.Infeasible
				if r.Status != want || r.Message != tt.reason {
					t.Errorf("got %s %q\nwant %s %q", r.Status, r.Message, want, tt.reason)
				}
			}
			for _, l := range r.Layers {
				if len(l.SamplesUS) != 3 || l.SamplesUS[0] != l.SamplesUS[1] || l.SamplesUS[0] != l.SamplesUS[2] {
					t.Errorf("%s: samples %v", l.Layer, l.SamplesUS)
				}
			}
		})
	}
	d, _ := boot(t, s, 1, llama())
	r := one(t, d, profile.MeasureOptions{Iterations: 2}, shot(profile.Batches, group(1, 1, 700), group(1, 32, 0), group(1, 16, 5)))
	i := slices.IndexFunc(r.Layers, func(l profile.LayerResult) bool { return l.Layer == "attention" })
	want := map[string][]float64{"flash": {45, 45}, "cache_write": {5, 5}}
	if diff := cmp.Diff(want, r.Layers[i].KernelsUS); diff != "" {
		t.Errorf("kernels (-want +got):\n%s", diff)
	}
}

func TestBootTakesTheSourcesLimits(t *testing.T) {
	s := open(t, Options{Bundle: smallBundle(t, nil)})
	d := s.NewDriver()
	e, err := d.Boot(context.Background(), profile.EngineSpec{
		Model:        &perfio.ModelConfig{MaxPositionEmbeddings: 4096, NumExperts: 8, NumExpertsPerToken: 2},
		Architecture: llama(), TP: 2, MaxNumBatchedTokens: 4096, MaxNumSeqs: 128, KVBlocks: 100,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := profile.Limits{MaxNumBatchedTokens: 2048, MaxNumSeqs: 128, MaxModelLen: 4096, CacheTokens: 1600, BlockSize: 16, NumExperts: 8, TopK: 2}
	if diff := cmp.Diff(want, e.Limits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	if e.Origin != profile.Replayed || e.GPU != "NVIDIA H200" || e.SMCount != 132 || e.Provenance["skew_statistic"] != perfio.SkewSum {
		t.Errorf("engine %+v", *e)
	}
	if _, err := d.Boot(context.Background(), profile.EngineSpec{Architecture: llama(), TP: 4}); err == nil || !strings.Contains(err.Error(), "has no tp4") {
		t.Errorf("absent degree: %v", err)
	}
}

func TestFingerprintFollowsWhatChangesValues(t *testing.T) {
	print := func(o Options, dir string) map[string]string {
		o.Bundle = dir
		_, e := boot(t, open(t, o), 1, llama())
		return e.Fingerprint
	}
	dir := smallBundle(t, nil)
	base := print(Options{}, dir)
	if diff := cmp.Diff(base, print(Options{Fail: 0.1, Delay: 1, Seed: 5}, smallBundle(t, nil))); diff != "" {
		t.Errorf("the same files elsewhere, and options that change no value:\n%s", diff)
	}
	for name, other := range map[string]map[string]string{
		"noise":       print(Options{Noise: 0.1}, dir),
		"drift":       print(Options{Drift: 0.1}, dir),
		"interpolate": print(Options{Interpolate: true}, dir),
		"a row":       print(Options{}, smallBundle(t, func(b *perfio.Bundle) { b.TPs[1].Attention[0].TimeUS = 12 })),
		"meta.yaml": print(Options{}, smallBundle(t, func(b *perfio.Bundle) {
			if err := b.Meta.Set("x", "note"); err != nil {
				t.Fatal(err)
			}
		})),
	} {
		if cmp.Equal(base, other) {
			t.Errorf("another %s, the same fingerprint", name)
		}
	}
	if cmp.Equal(print(Options{Noise: 0.1, Seed: 1}, dir), print(Options{Noise: 0.1, Seed: 2}, dir)) {
		t.Error("another seed of the noise, the same fingerprint")
	}
}

func TestInterpolate(t *testing.T) {
	s := open(t, Options{Bundle: smallBundle(t, nil), Interpolate: true})
	d, _ := boot(t, s, 1, llama())
	got := func(layer string, s profile.Shot) float64 {
		return times(one(t, d, profile.MeasureOptions{Iterations: 1, Layers: []string{layer}}, s))[layer]
	}
	for name, tt := range map[string][2]float64{
		"dense":        {got("qkv_proj", shot(profile.Dense, group(1, 22, 0))), 13.333},
		"per sequence": {got("sampler", shot(profile.PerSequence, group(2, 1, 0))), 33.333},
		"attention":    {got("attention", shot(profile.Attention, group(2, 1, 336))), 15},
		"measured":     {got("attention", shot(profile.Attention, group(2, 1, 160))), 11},
		"skew, as the sum of 3 runs": {
			got("attention", (&profile.SkewCase{N: 2, NB: 1, Skew: 3, KVS: 168, KVBig: 504, KVMean: 336}).Shots(profile.EngineOrder)[0]), 45,
		},
	} {
		if math.Abs(tt[0]-tt[1]) > 0.0015 {
			t.Errorf("%s: %v, want %v", name, tt[0], tt[1])
		}
	}
}

func TestNoise(t *testing.T) {
	dir := smallBundle(t, nil)
	sample := func(seed int64, repeat int) []float64 {
		d, _ := boot(t, open(t, Options{Bundle: dir, Noise: 0.05, Seed: seed}), 1, llama())
		var last []float64
		for range repeat {
			r := one(t, d, profile.MeasureOptions{Iterations: 4000, Layers: []string{"qkv_proj"}}, shot(profile.Dense, group(1, 64, 0)))
			last = r.Layers[0].SamplesUS
		}
		return last
	}
	a := sample(1, 1)
	mean, squares := 0.0, 0.0
	for _, v := range a {
		mean += v / float64(len(a))
		squares += (v - 20) * (v - 20) / float64(len(a))
	}
	if math.Abs(mean/20-1) > 0.004 || math.Abs(math.Sqrt(squares)/20/0.05-1) > 0.05 {
		t.Errorf("mean %v, deviation %v of 20; want 20 and 1", mean, math.Sqrt(squares))
	}
	if !slices.Equal(a, sample(1, 1)) {
		t.Error("the same seed gives other samples")
	}
	if slices.Equal(a, sample(2, 1)) {
		t.Error("another seed gives the same samples")
	}
	if slices.Equal(a, sample(1, 2)) {
		t.Error("another attempt gives the same samples")
	}
}

func TestDriftHasTwoStates(t *testing.T) {
	d, _ := boot(t, open(t, Options{Bundle: smallBundle(t, nil), Drift: 0.04, Seed: 3}), 1, llama())
	run, state, count := 0, 20.0, map[float64]int{}
	var runs []int
	for range 4000 {
		v := times(one(t, d, profile.MeasureOptions{Iterations: 1, Layers: []string{"qkv_proj"}}, shot(profile.Dense, group(1, 64, 0))))["qkv_proj"]
		if count[v]++; v != state {
			runs, run, state = append(runs, run), 0, v
		}
		run++
	}
	if len(count) != 2 || count[20] < 1000 || count[20*1.04] < 1000 {
		t.Errorf("states %v, want 20 and 20.8", count)
	}
	for _, r := range runs {
		if r < shortestState || r > longestState {
			t.Errorf("a state lasted %d shots", r)
		}
	}
}

// Faults come at their rates, another attempt is drawn again, and a crashed
// engine takes no more shots.
func TestFaults(t *testing.T) {
	dir := smallBundle(t, nil)
	s := open(t, Options{Bundle: dir, Fail: 0.2, Crash: 0.2, Hang: 0.2, Seed: 11})
	d, _ := boot(t, s, 1, llama())
	o := profile.MeasureOptions{Iterations: 1, Deadline: time.Microsecond, Layers: []string{"qkv_proj"}}
	shots := []profile.Shot{shot(profile.Dense, group(1, 64, 0))}
	got := map[string]int{}
	const attempts = 2000
	for i := range attempts {
		err := d.Measure(context.Background(), shots, o, func(r profile.Result) error {
			got[string(r.Status)]++
			if r.Status == profile.Failed && !strings.Contains(r.Message, "injected failure of attempt") {
				t.Errorf("message %q", r.Message)
			}
			return nil
		})
		if err == nil {
			continue
		}
		lost := new(profile.EngineLostError)
		if !errors.As(err, &lost) || lost.Index != 0 || lost.LastWords != "replay: dense 1x64@0" {
			t.Fatalf("attempt %d: %v", i, err)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			got["hang"]++
		} else {
			got["crash"]++
		}
		if err := d.Measure(context.Background(), shots, o, nil); err == nil || err.Error() != "replay: Measure before Boot" {
			t.Fatalf("on a lost engine: %v", err)
		}
		d, _ = boot(t, s, 1, llama())
	}
	for what, share := range map[string]float64{"ok": 0.4, "failed": 0.2, "crash": 0.2, "hang": 0.2} {
		if n := float64(got[what]) / attempts; math.Abs(n-share) > 0.04 {
			t.Errorf("%s: %v of the attempts, want %v", what, n, share)
		}
	}
	if len(got) != 4 {
		t.Errorf("outcomes %v", got)
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	dir := smallBundle(t, nil)
	for name, o := range map[string]Options{"delay": {Delay: time.Hour}, "hang": {Hang: 1}} {
		o.Bundle = dir
		d, _ := boot(t, open(t, o), 1, llama())
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Millisecond, cancel)
		err := d.Measure(ctx, []profile.Shot{shot(profile.Dense, group(1, 64, 0))}, profile.MeasureOptions{}, func(profile.Result) error {
			t.Error("a result")
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClosed(t *testing.T) {
	d, _ := boot(t, open(t, Options{Bundle: smallBundle(t, nil)}), 1, llama())
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	if err := d.Measure(context.Background(), []profile.Shot{shot(profile.Dense, group(1, 64, 0))}, profile.MeasureOptions{}, nil); err == nil {
		t.Error("Measure after Close: no error")
	}
	if _, err := d.Boot(context.Background(), profile.EngineSpec{Architecture: llama(), TP: 1}); err == nil {
		t.Error("Boot after Close: no error")
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open(Options{Bundle: filepath.Join(t.TempDir(), "absent")}); err == nil {
		t.Error("an absent bundle: no error")
	}
	dir := smallBundle(t, func(b *perfio.Bundle) { b.TPs = nil })
	if _, err := Open(Options{Bundle: dir}); err == nil || !strings.Contains(err.Error(), "found no tp<N> folder") {
		t.Errorf("a bundle without tp folders: %v", err)
	}
}
