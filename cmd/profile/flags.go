package main

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/profile/replay"
)

// sweepFlags are the flags that say what is measured, on what, and how; every
// command that looks at a sweep has all of them, under one name each.
type sweepFlags struct {
	Model        string
	Hardware     string
	Variant      string
	Architecture string
	Out          string
	Driver       string
	Spec         string
	TPs          []int
	TPMode       string
	DType        string
	KVCacheDType string

	MaxNumBatchedTokens int
	MaxNumSeqs          int
	MaxModelLen         int
	KVBlocks            int
	BlockSize           int
	EngineArgs          map[string]string
	Python              string
	Env                 map[string]string
	BootDeadline        time.Duration
	EngineLog           string

	Plan          string
	Kernel        string
	Order         string
	Only          []string
	SkipSkew      bool
	ShareRepeats  bool
	FromBundle    string
	Lines         string
	PlanFile      string
	MaxKV         int
	ChunkFactor   float64
	KVFactor      float64
	SkewNFactor   float64
	SkewPCFactor  float64
	SkewKPFactor  float64
	SkewKVSFactor float64
	RandomBatches int
	Validation    int
	Seed          int64

	stepFlags

	Blocks     int
	Warmup     int
	Iterations int

	replaySource *replay.Source // opened once for all drivers

	// given tells a flag that was set, by the command line or the config file,
	// from its default.
	given func(flag string) bool
}

// addSweepFlags defines the flags on cmd.
func addSweepFlags(cmd *cobra.Command) *sweepFlags {
	f := addEngineFlags(cmd)
	f.addPlanFlags(cmd.Flags())
	return f
}

// addEngineFlags defines those that say which engine runs and how: all that a
// command without a plan has a use for. The others have no value yet.
func addEngineFlags(cmd *cobra.Command) *sweepFlags {
	f := &sweepFlags{}
	flags := cmd.Flags()
	flags.StringVar(&f.Model, "model", "", "model: a Hugging Face `id`, a folder or a config.json")
	flags.StringVar(&f.Architecture, "architecture", "", "architecture `file` in place of the one for the model's type")
	flags.StringVar(&f.Out, "out", "perf", "`folder` that bundles stand in")
	flags.StringVar(&f.Driver, "driver", "", "what measures: roofline, replay:BUNDLE[,key=value...], vllm, exec:CMD")
	flags.StringVar(&f.DType, "dtype", "auto", "data type of weights and activations, by the engine's name")
	flags.StringVar(&f.KVCacheDType, "kv-cache-dtype", "auto", "data type of the KV cache")
	flags.IntVar(&f.MaxNumBatchedTokens, "max-num-batched-tokens", 2048, "most tokens a step")
	flags.IntVar(&f.MaxNumSeqs, "max-num-seqs", 256, "most requests a step")
	flags.IntVar(&f.MaxModelLen, "max-model-len", 0, "longest sequence (0: the model's own)")
	flags.StringToStringVar(&f.EngineArgs, "engine-arg", nil, "`key=value` passed to the engine as it is; repeatable")
	flags.StringVar(&f.Python, "python", "", "`interpreter` of the environment that has vLLM (default: python3)")
	flags.StringToStringVar(&f.Env, "env", nil, "`NAME=value` in the worker's environment; repeatable")
	flags.DurationVar(&f.BootDeadline, "boot-deadline", 20*time.Minute, "longest that a worker's engine may take to boot")
	flags.StringVar(&f.EngineLog, "engine-log", "", "`file` to which a worker's whole log is added (-: standard error)")
	flags.Int64Var(&f.Seed, "seed", 0, "seed of random batches, order, weights and cache contents")
	f.given = flags.Changed
	return f
}

// addPlanFlags defines those that say what is measured.
func (f *sweepFlags) addPlanFlags(flags *pflag.FlagSet) {
	flags.StringVar(&f.Hardware, "hardware", "", "`name` of the hardware, for the bundle's folder and for facts about it")
	flags.StringVar(&f.Variant, "variant", "", "`name` of the bundle's last folder (default: made of the data types)")
	flags.StringVar(&f.Spec, "spec", "", "hardware specification `file` for the roofline driver")
	flags.IntSliceVar(&f.TPs, "tp", []int{1}, "tensor-parallel degrees")
	flags.StringVar(&f.TPMode, "tp-mode", "emulated", "emulated (one device, sizes divided by the degree) or real (as many devices, collectives measured)")
	flags.IntVar(&f.KVBlocks, "kv-blocks", 0, "KV cache blocks, for drivers that have no cache of their own (0: no limit)")
	flags.IntVar(&f.BlockSize, "block-size", 16, "tokens a KV cache block, where no engine says it")
	flags.StringVar(&f.Plan, "plan", "full", "full (LLMServingSim's grids) or lean (by attention kernel)")
	flags.StringVar(&f.Kernel, "attention-kernel", "", "fa2 or fa3: the kernel family that a lean plan is for (default: the engine's)")
	flags.StringVar(&f.Order, "order", "engine", "mixed batches with the decodes first (engine) or prefill-first")
	flags.StringSliceVar(&f.Only, "only", nil, "categories to measure: dense, per_sequence, attention, moe, skew, batches, validation, step")
	flags.BoolVar(&f.SkipSkew, "skip-skew", false, "leave out the skew cases")
	flags.BoolVar(&f.ShareRepeats, "share-repeats", false, "measure batches that stand in several categories once (default: the driver's choice)")
	flags.StringVar(&f.FromBundle, "from-bundle", "", "plan the rows of the bundle at `path` in place of the grids")
	flags.StringVar(&f.Lines, "lines", "", "of --from-bundle only the rows on these `lines` of the file of --only at --tp, as in 155,160-170; the header is line 1, and empty lines do not count")
	flags.StringVar(&f.PlanFile, "plan-file", "", "take the shots from `file`, as plan --shots prints them")
	flags.IntVar(&f.MaxKV, "attention-max-kv", 16384, "longest KV history of the grids")
	flags.Float64Var(&f.ChunkFactor, "attention-chunk-factor", 2, "step of the prefill_chunk grid")
	flags.Float64Var(&f.KVFactor, "attention-kv-factor", 2, "step of the kv_prefill and kv_decode grids")
	flags.Float64Var(&f.SkewNFactor, "skew-n-factor", 2, "step of the skew cases' n")
	flags.Float64Var(&f.SkewPCFactor, "skew-pc-factor", 2, "step of the skew cases' prefill chunk")
	flags.Float64Var(&f.SkewKPFactor, "skew-kp-factor", 2, "step of the skew cases' prefill history")
	flags.Float64Var(&f.SkewKVSFactor, "skew-kvs-factor", 2, "step of the skew cases' short decode length")
	flags.IntVar(&f.RandomBatches, "random-batches", 0, "random batches for batches.jsonl (0: the plan's own number, -1: none)")
	flags.IntVar(&f.Validation, "validation", 0, "random batches of another stream, kept apart from every fit")
	flags.IntVar(&f.Blocks, "blocks", 2, "decoder blocks to boot, 1 or 2; the last one's layers count")
	flags.IntVar(&f.Warmup, "warmup", 1, "runs of a shot before the timed ones")
	flags.IntVar(&f.Iterations, "iterations", 3, "timed runs of a shot")
	f.stepFlags.add(flags)
}

// planOptions are the flags as the plan takes them. shareRepeats is the
// driver's own choice, which the flag overrules.
func (f *sweepFlags) planOptions(shareRepeats bool) (profile.PlanOptions, error) {
	opts := profile.PlanOptions{
		TPs: f.TPs, Kind: profile.Kind(f.Plan), Kernel: profile.Kernel(f.Kernel), Order: profile.Order(f.Order),
		MaxKV: f.MaxKV, ChunkFactor: f.ChunkFactor, KVFactor: f.KVFactor,
		SkewNFactor: f.SkewNFactor, SkewPCFactor: f.SkewPCFactor, SkewKPFactor: f.SkewKPFactor, SkewKVSFactor: f.SkewKVSFactor,
		SkipSkew: f.SkipSkew, ShareRepeats: shareRepeats, RealTP: profile.TPMode(f.TPMode) == profile.RealTP,
		RandomBatches: f.RandomBatches, ValidationBatches: f.Validation, Seed: f.Seed,
	}
	if f.given("share-repeats") {
		opts.ShareRepeats = f.ShareRepeats
	}
	if mode := profile.TPMode(f.TPMode); mode != profile.EmulatedTP && mode != profile.RealTP {
		return opts, usageErrorf("tp-mode: found %q, expected %s or %s", f.TPMode, profile.EmulatedTP, profile.RealTP)
	}
	for _, name := range f.Only {
		opts.Only = append(opts.Only, profile.Category(name))
	}
	for _, given := range []struct {
		flag  string
		value float64
	}{
		{"attention-max-kv", float64(f.MaxKV)},
		{"attention-chunk-factor", f.ChunkFactor}, {"attention-kv-factor", f.KVFactor},
		{"skew-n-factor", f.SkewNFactor}, {"skew-pc-factor", f.SkewPCFactor},
		{"skew-kp-factor", f.SkewKPFactor}, {"skew-kvs-factor", f.SkewKVSFactor},
	} {
		if given.value == 0 {
			// The plan would take a zero for its default.
			return opts, usageErrorf("%s: found 0", given.flag)
		}
	}
	for _, least := range []struct {
		flag         string
		value, least int
	}{
		{"max-num-batched-tokens", f.MaxNumBatchedTokens, 1}, {"max-num-seqs", f.MaxNumSeqs, 1},
		{"max-model-len", f.MaxModelLen, 0}, {"kv-blocks", f.KVBlocks, 0}, {"block-size", f.BlockSize, 1},
		{"iterations", f.Iterations, 1}, {"warmup", f.Warmup, 0}, {"blocks", f.Blocks, 1},
	} {
		if least.value < least.least {
			return opts, usageErrorf("%s: found %d, expected at least %d", least.flag, least.value, least.least)
		}
	}
	if f.Blocks > 2 {
		return opts, usageErrorf("blocks: found %d, expected 1 or 2", f.Blocks)
	}
	opts, err := opts.Filled()
	if err != nil {
		return opts, &exitError{Status: exitUsage, Err: err}
	}
	return opts, nil
}
