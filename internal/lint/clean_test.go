package lint

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

// cleanBundle is a bundle in which nothing is wrong: formulas above the least
// times of an H200, scattered by 1%, with two interleaved kv_decode grids.
func cleanBundle(t testing.TB) *perfio.Bundle {
	t.Helper()
	random := rand.New(rand.NewPCG(7, 7))
	noise := func(us float64) float64 { return us * math.Exp(0.01*random.NormFloat64()) }
	b := &perfio.Bundle{Dir: "/perf/H200/meta-llama/Llama-3.1-8B/bf16", Meta: &perfio.Meta{}}
	set := func(value any, path ...string) {
		if err := b.Meta.Set(value, path...); err != nil {
			t.Fatal(err)
		}
	}
	set("NVIDIA H200", "gpu")
	set("H200", "hardware")
	set("meta-llama/Llama-3.1-8B", "model")
	set("bf16", "variant")
	set("llama", "architecture")
	set(perfio.OriginMeasured, "origin")
	set(512, "engine_effective", "max_num_batched_tokens")
	set(64, "engine_effective", "max_num_seqs")
	set(3, "measurement_iterations")
	set(perfio.SkewMean, "skew_statistic")
	set(4096, "attention_grid", "max_kv")
	set(0.99, "telemetry", "anchors", "fastest")
	set(1.01, "telemetry", "anchors", "slowest")
	arch, err := perfio.LoadArchitecture("llama")
	if err != nil {
		t.Fatal(err)
	}
	for _, degree := range []int{1, 2} {
		tp := perfio.TP{Degree: degree}
		share := float64(degree)
		for _, layer := range arch.Layers("dense") {
			base, slope := 3.0, 0.01
			if matrix(layer) {
				base, slope = 30, 0.4
			}
			for tokens := 1; tokens <= 512; tokens++ {
				if tokens < 16 || tokens%16 == 0 {
					tp.Dense = append(tp.Dense, perfio.DenseRow{Layer: layer, Tokens: tokens, TimeUS: noise((base + slope*float64(tokens)) / share)})
				}
			}
		}
		for _, layer := range arch.Layers("per_sequence") {
			for n := 1; n <= 64; n++ {
				tp.PerSequence = append(tp.PerSequence, perfio.SequenceRow{Layer: layer, Sequences: n, TimeUS: noise((150 + 1.5*float64(n)) / share)})
			}
		}
		cleanGrid(&tp, share, noise)
		if degree == 1 {
			for _, tokens := range []int{1, 16, 64} {
				for experts := 2; experts <= 64; experts *= 2 {
					tp.MoE = append(tp.MoE, perfio.MoERow{Tokens: tokens, ActivatedExperts: experts, TimeUS: noise(20 + float64(experts))})
				}
			}
		}
		b.TPs = append(b.TPs, tp)
	}
	copyStable(b, arch)
	cleanSteps(b, noise)
	return b
}

// cleanSteps are whole steps of the first degree: 32 blocks of its layers, with a
// host that takes a millisecond.
func cleanSteps(b *perfio.Bundle, noise func(float64) float64) {
	sizes := []int{1, 2, 4, 8, 16, 32, 64}
	for _, mode := range []string{perfio.ModeGraphSync, perfio.ModeGraphAsync, perfio.ModeEagerSync} {
		for n := 1; n <= 60; n++ {
			r := perfio.StepRow{Mode: mode, Layers: 32, Graph: perfio.GraphNone, PaddedTokens: n, NDecode: n, KVDecodeMean: 200.5, KVDecodeMax: 300, KVDecodeMin: 100, Steps: 1}
			if mode != perfio.ModeEagerSync {
				r.Graph, r.PaddedTokens = perfio.GraphFull, sizes[slices.IndexFunc(sizes, func(size int) bool { return size >= n })]
			}
			if n%6 == 0 {
				r.NPrefill, r.PrefillChunk, r.KVPrefill, r.Admitted, r.Graph, r.PaddedTokens = n/6%3+1, 128, 0, 1, perfio.GraphNone, 128+n
			}
			tokens := float64(n + r.PrefillChunk)
			matrices, others := 4*(30+0.4*tokens), 5*(3+0.01*tokens)
			r.DeviceForwardUS = noise(32 * (matrices + others + attentionUS(r.PrefillChunk, 0, n, 200, 1)))
			r.DeviceWaitUS, r.DeviceAfterUS, r.DeviceStepUS = noise(500), noise(400+3*tokens), math.NaN()
			r.StepUS = 1.001 * r.DeviceForwardUS // ahead of the device, whose pace it has
			if mode != perfio.ModeGraphAsync {
				r.StepUS = r.DeviceWaitUS + r.DeviceForwardUS + r.DeviceAfterUS + noise(100)
			} else if n%2 == 0 {
				r.StepUS *= 0.4
			} else {
				r.StepUS *= 1.7
			}
			parts := []*float64{&r.ScheduleUS, &r.DispatchUS, &r.PrepareUS, &r.LaunchUS, &r.AfterUS, &r.WaitUS, &r.UpdateUS, &r.ReturnUS, &r.BetweenUS}
			r.SampleUS = r.StepUS
			for _, us := range parts {
				*us = noise(20)
				r.SampleUS -= *us
			}
			b.TPs[0].Steps = append(b.TPs[0].Steps, r)
		}
		path := []string{"steps", "per_tp", "1", mode}
		set(b, []int{32}, append(path, "layers")...)
		set(b, 60, append(path, "rows")...)
		set(b, mode == perfio.ModeGraphAsync, append(path, "async_scheduling")...)
		if mode != perfio.ModeEagerSync {
			set(b, sizes, append(path, "capture_sizes")...)
		}
	}
}

func attentionUS(pc, kp, nd, kd int, share float64) float64 {
	return 8 + (3e-5*float64(pc*(kp+pc/2))+1.2e-3*float64(nd*kd))/share
}

func cleanGrid(tp *perfio.TP, share float64, noise func(float64) float64) {
	chunks, histories, decodes := []int{0, 16, 64, 256, 512}, []int{0, 512, 2048}, []int{0, 1, 4, 16, 64}
	lengths := []int{0}
	for kv := 16; kv <= 4096; kv *= 2 {
		lengths = append(lengths, kv)
		if kv < 4096 {
			lengths = append(lengths, kv*3/2)
		}
	}
	at := map[[2]int]float64{}
	for _, pc := range chunks {
		for _, kp := range histories {
			for _, nd := range decodes {
				for _, kd := range lengths {
					if pc == 0 && (kp > 0 || nd == 0) || (nd == 0) != (kd == 0) {
						continue
					}
					row := perfio.AttentionRow{PrefillChunk: pc, KVPrefill: kp, NDecode: nd, KVDecode: kd, TimeUS: noise(attentionUS(pc, kp, nd, kd, share))}
					tp.Attention = append(tp.Attention, row)
					if pc == 0 {
						at[[2]int{nd, kd}] = row.TimeUS
					}
				}
			}
		}
	}
	samples := 0
	for _, n := range []int{4, 16, 64} {
		for kvs := 16; kvs <= 1024; kvs *= 2 {
			for _, nb := range []int{1, n / 2} {
				row := perfio.SkewRow{Regime: "pure", N: n, NB: nb, Ratio: float64(nb) / float64(n), Skew: 4, KVS: kvs, KVBig: 4 * kvs}
				row.KVMean = (nb*row.KVBig + (n-nb)*kvs) / n
				row.TMaxUS = noise(at[[2]int{n, row.KVBig}])
				row.TMeanUS = noise(attentionUS(0, 0, n, row.KVMean, share))
				row.TSkewUS = row.TMeanUS
				row.HasAlpha = row.TMaxUS > row.TMeanUS
				if row.HasAlpha {
					samples++
				}
				tp.Skew = append(tp.Skew, row)
			}
		}
	}
	for _, label := range []string{"n<=4", "n<=16"} {
		tp.SkewFit = append(tp.SkewFit, perfio.SkewFitRow{NLabel: label, SkewRateLabel: "sr<=40%", KVBigLabel: "kvB<=1k", KPLabel: "kp=0", Alpha: 0.1, NSamples: 2})
	}
	tp.SkewFit = append(tp.SkewFit, perfio.SkewFitRow{NLabel: "n<=64", SkewRateLabel: "sr<=40%", KVBigLabel: "kvB<=1k", KPLabel: "kp=0", Alpha: 0.1, NSamples: samples - 4})
}

// copyStable gives tp2 the rows of tp1 where the architecture says so.
func copyStable(b *perfio.Bundle, arch *perfio.Architecture) {
	one, two := &b.TPs[0], &b.TPs[1]
	for i := range two.Dense {
		if arch.Entry(two.Dense[i].Layer).TPStable {
			two.Dense[i] = one.Dense[i]
		}
	}
	for i := range two.PerSequence {
		if arch.Entry(two.PerSequence[i].Layer).TPStable {
			two.PerSequence[i] = one.PerSequence[i]
		}
	}
}

func TestCleanBundle(t *testing.T) {
	b := cleanBundle(t)
	for _, f := range Check(b) {
		t.Errorf("%+v", f)
	}
	low, high := leastShare(newSubject(b))
	t.Logf("times are %.2f to %.1f times the least", low, high)
	names := []string{}
	for _, rule := range Rules() {
		if slices.Contains(names, rule.Name) || rule.About == "" {
			t.Errorf("%s: twice, or says nothing of itself", rule.Name)
		}
		names = append(names, rule.Name)
	}
}
