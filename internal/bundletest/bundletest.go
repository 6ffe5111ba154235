// Package bundletest makes a small clean bundle and damages it in named ways,
// for the tests of everything that reads bundles.
package bundletest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing/fstest"

	"github.com/layerprof/layerprof/perfio"
)

// Bundle is a small bundle that is in order: two degrees, every file. Its times
// come from formulas and stand for no hardware. Each call makes a new one.
func Bundle() *perfio.Bundle {
	b := &perfio.Bundle{Meta: meta()}
	for _, degree := range []int{1, 2} {
		b.TPs = append(b.TPs, tp(degree))
	}
	return b
}

func meta() *perfio.Meta {
	m := &perfio.Meta{}
	set := func(value any, path ...string) {
		if err := m.Set(value, path...); err != nil {
			panic("bundletest: " + err.Error()) // the paths are our own
		}
	}
	set("SYNTHETIC", "hardware")
	set("qwen3_moe", "architecture")
	set("example/Toy-MoE", "model")
	set("bf16", "variant")
	set(perfio.OriginSynthetic, "origin")
	set([]int{1, 2}, "tp_degrees")
	set(16, "engine_effective", "block_size")
	set(64, "engine_effective", "max_num_batched_tokens")
	set(8, "engine_effective", "max_num_seqs")
	set(1024, "engine_effective", "max_model_len")
	set(3, "measurement_iterations")
	set(perfio.SkewMean, "skew_statistic")
	set(true, "skew_fit", "enabled")
	set([]float64{0, 2, 4, 1000000}, "skew_fit", "bucket_axes", "n_bins")
	set([]string{"n<=2", "n<=4", "n>4"}, "skew_fit", "bucket_axes", "n_labels")
	for _, degree := range []string{"1", "2"} {
		set(0.125, "skew_fit", "per_tp", degree, "alpha_default")
		set("tp"+degree+"/"+perfio.SkewFitFile, "skew_fit", "per_tp", degree, "bucket_table")
	}
	set([]int{2}, "steps", "per_tp", "1", perfio.ModeEagerSync, "layers")
	set(3, "steps", "per_tp", "1", perfio.ModeEagerSync, "rows")
	set(false, "steps", "per_tp", "1", perfio.ModeEagerSync, "async_scheduling")
	return m
}

func tp(degree int) perfio.TP {
	out := perfio.TP{Degree: degree}
	share := 1 / float64(degree)
	shareOf := func(layer string) float64 {
		switch layer {
		case "final_layernorm", "layernorm", "qk_norm", "sampler":
			return 1 // tp_stable: the rows are those of tp1
		}
		return share
	}
	for i, layer := range []string{"embedding", "final_layernorm", "layernorm", "o_proj", "qk_norm", "qkv_proj", "rotary_emb"} {
		for _, tokens := range []int{1, 2, 16, 64} {
			out.Dense = append(out.Dense, perfio.DenseRow{Layer: layer, Tokens: tokens, TimeUS: 2 + float64(i+1)*shareOf(layer)*float64(tokens)/8})
		}
	}
	for _, layer := range []string{"lm_head", "sampler"} {
		for _, sequences := range []int{1, 4, 8} {
			out.PerSequence = append(out.PerSequence, perfio.SequenceRow{Layer: layer, Sequences: sequences, TimeUS: 40 + shareOf(layer)*float64(sequences)})
		}
	}
	for _, pc := range []int{0, 16, 64} {
		for _, kp := range []int{0, 256} {
			for _, nd := range []int{0, 1, 8} {
				for _, kd := range []int{0, 16, 1024} {
					if pc == 0 && (kp > 0 || nd == 0) || (nd == 0) != (kd == 0) {
						continue
					}
					work := float64(pc)*float64(kp+pc/2) + float64(nd*kd)
					out.Attention = append(out.Attention, perfio.AttentionRow{PrefillChunk: pc, KVPrefill: kp, NDecode: nd, KVDecode: kd,
						TimeUS: 5 + share*work/512})
				}
			}
		}
	}
	if degree == 1 {
		for _, tokens := range []int{1, 16, 64} {
			for _, experts := range []int{2, 8} {
				out.MoE = append(out.MoE, perfio.MoERow{Tokens: tokens, ActivatedExperts: experts, TimeUS: 20 + float64(experts) + float64(tokens)/4})
			}
		}
	}
	for _, n := range []int{2, 4} {
		for _, kvs := range []int{128, 256} {
			row := perfio.SkewRow{Regime: "pure", N: n, NB: 1, Ratio: 1 / float64(n), Skew: 4, KVS: kvs, KVBig: 4 * kvs,
				KVMean: (4*kvs + (n-1)*kvs) / n}
			row.TMeanUS = 5 + share*float64(n*row.KVMean)/512
			row.TMaxUS = 5 + share*float64(n*row.KVBig)/512
			row.TSkewUS = row.TMeanUS + 0.125*(row.TMaxUS-row.TMeanUS)
			row.Alpha, row.HasAlpha = 0.125, true
			out.Skew = append(out.Skew, row)
		}
	}
	out.SkewFit = []perfio.SkewFitRow{
		{PC: 0, NLabel: "n<=2", SkewRateLabel: "sr<=70%", KVBigLabel: "kvB<=1k", KPLabel: "kp=0", Alpha: 0.125, NSamples: 2},
		{PC: 0, NLabel: "n<=4", SkewRateLabel: "sr<=40%", KVBigLabel: "kvB<=1k", KPLabel: "kp=0", Alpha: 0.125, NSamples: 2},
	}
	out.Batches = []perfio.BatchRow{{
		Requests:   []perfio.Request{{NewTokens: 16}, {NewTokens: 1, KVHistory: 100}},
		MeasuredUS: map[string]float64{"attention": 7.5}, N: 3, Kind: perfio.KindMixed,
	}}
	if degree == 1 {
		for n := range 3 {
			out.Steps = append(out.Steps, perfio.StepRow{
				Mode: perfio.ModeEagerSync, Layers: 2, Graph: perfio.GraphNone, PaddedTokens: n + 1, NDecode: n + 1, KVDecodeMean: 20.5, KVDecodeMax: 21, KVDecodeMin: 20,
				Steps: 8, ScheduleUS: 40, DispatchUS: 10, PrepareUS: 150.5, LaunchUS: 900, AfterUS: 30, SampleUS: 300, WaitUS: 20, UpdateUS: 25, ReturnUS: 60,
				BetweenUS: 5, StepUS: 1540.5, DeviceWaitUS: 160.5, DeviceForwardUS: 950, DeviceAfterUS: 280, DeviceStepUS: 1541, Spread: 0.0125,
			})
		}
	}
	return out
}

// Collectives are the rows of a collectives.csv; the clean bundle's degrees are
// emulated and have none.
func Collectives() []perfio.CollectiveRow {
	var out []perfio.CollectiveRow
	for _, tokens := range []int{1, 2, 16, 64} {
		for _, layer := range []string{"embedding", "moe", "o_proj"} {
			out = append(out, perfio.CollectiveRow{Layer: layer, Collective: "all_reduce", Tokens: tokens, Ranks: 2, Bytes: 256 * tokens, Calls: 1,
				TimeUS: 8 + float64(tokens)/16, WaitUS: 1.5})
		}
	}
	for _, sequences := range []int{1, 4, 8} {
		out = append(out, perfio.CollectiveRow{Layer: "lm_head", Collective: "all_gather", Tokens: sequences, Ranks: 2, Bytes: 512 * sequences, Calls: 1,
			TimeUS: 10 + float64(sequences)})
	}
	return out
}

// Files are the clean bundle's files by their path in it.
func Files() fstest.MapFS {
	b, out := Bundle(), fstest.MapFS{}
	put := func(name string, write func(io.Writer) error) {
		var text bytes.Buffer
		if err := write(&text); err != nil {
			panic("bundletest: " + err.Error()) // the rows are our own
		}
		out[name] = &fstest.MapFile{Data: text.Bytes(), Mode: 0o644}
	}
	put(perfio.MetaFile, func(w io.Writer) error { return perfio.WriteMeta(w, b.Meta) })
	for _, tp := range b.TPs {
		folder := fmt.Sprintf("tp%d/", tp.Degree)
		put(folder+perfio.DenseFile, func(w io.Writer) error { return perfio.WriteDense(w, tp.Dense) })
		put(folder+perfio.PerSequenceFile, func(w io.Writer) error { return perfio.WritePerSequence(w, tp.PerSequence) })
		put(folder+perfio.AttentionFile, func(w io.Writer) error { return perfio.WriteAttention(w, tp.Attention) })
		if tp.MoE != nil {
			put(folder+perfio.MoEFile, func(w io.Writer) error { return perfio.WriteMoE(w, tp.MoE) })
		}
		put(folder+perfio.SkewFile, func(w io.Writer) error { return perfio.WriteSkew(w, tp.Skew) })
		put(folder+perfio.SkewFitFile, func(w io.Writer) error { return perfio.WriteSkewFit(w, tp.SkewFit) })
		put(folder+perfio.BatchesFile, func(w io.Writer) error { return perfio.WriteBatches(w, tp.Batches) })
		if tp.Steps != nil {
			put(folder+perfio.StepFile, func(w io.Writer) error { return perfio.WriteStep(w, tp.Steps) })
		}
	}
	return out
}

// Write puts files into a folder, which it makes.
func Write(dir string, files fstest.MapFS) error {
	for name, file := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(path, file.Data, 0o666); err != nil {
			return err
		}
	}
	return nil
}
