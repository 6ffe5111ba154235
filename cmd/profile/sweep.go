package main

import (
	"bytes"
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// sweep is what the sweep flags name, loaded.
type sweep struct {
	flags  *sweepFlags
	Model  *perfio.ModelConfig  // nil without --model
	Arch   *perfio.Architecture // nil without a model, an architecture or a bundle
	Source *perfio.Bundle       // of --from-bundle
	// planFile is the text of --plan-file.
	planFile []byte
	Options  profile.PlanOptions
}

// loadSweep reads what the flags name. shareRepeats is the driver's own choice.
func loadSweep(ctx context.Context, f *sweepFlags, shareRepeats bool) (*sweep, error) {
	if f.FromBundle != "" && f.PlanFile != "" {
		return nil, usageErrorf("from-bundle and plan-file: only one of the two can say what to measure")
	}
	s := &sweep{flags: f}
	var err error
	if f.FromBundle != "" {
		if s.Source, err = perfio.OpenBundle(f.FromBundle); err != nil {
			return nil, err
		}
		s.fromSource()
		if f.given("lines") { // an empty one too: a script's variable was empty
			if err := s.keepLines(); err != nil {
				return nil, err
			}
		}
	} else if f.given("lines") {
		return nil, usageErrorf("lines: there is no --from-bundle whose lines they are")
	}
	if f.PlanFile != "" {
		if s.planFile, err = os.ReadFile(f.PlanFile); err != nil {
			return nil, err
		}
		if err := s.planFileTPs(); err != nil {
			return nil, err
		}
	}
	if f.Model != "" {
		if s.Model, err = loadModel(ctx, f.Model); err != nil {
			return nil, err
		}
	}
	switch {
	case s.Model != nil || f.Architecture != "":
		s.Arch, err = loadArchitecture(f.Architecture, s.Model)
	case s.Source != nil && s.Source.Meta.Architecture() != "":
		s.Arch, err = perfio.LoadArchitecture(s.Source.Meta.Architecture())
	}
	if err != nil {
		return nil, err
	}
	s.Options, err = f.planOptions(shareRepeats)
	return s, err
}

// fromSource takes from the bundle what the flags leave open.
func (s *sweep) fromSource() {
	f, limits := s.flags, s.Source.Meta.Limits()
	for _, field := range []struct {
		flag  string
		value *int
		own   int
	}{
		{"max-num-batched-tokens", &f.MaxNumBatchedTokens, limits.MaxNumBatchedTokens},
		{"max-num-seqs", &f.MaxNumSeqs, limits.MaxNumSeqs},
		{"max-model-len", &f.MaxModelLen, limits.MaxModelLen},
		{"block-size", &f.BlockSize, limits.BlockSize},
		{"attention-max-kv", &f.MaxKV, s.Source.Meta.Int("attention_grid", "max_kv")},
	} {
		if !f.given(field.flag) && field.own > 0 {
			*field.value = field.own
		}
	}
	if !f.given("tp") {
		f.TPs = nil
		for _, tp := range s.Source.TPs {
			f.TPs = append(f.TPs, tp.Degree)
		}
	}
}

// planFileTPs takes the degrees from the plan file, where no flag says them.
func (s *sweep) planFileTPs() error {
	anyLimits := profile.Limits{MaxNumBatchedTokens: perfio.MaxKey, MaxNumSeqs: perfio.MaxKey}
	plan, err := profile.ReadPlan(bytes.NewReader(s.planFile), s.flags.PlanFile, anyLimits, nil, profile.PlanOptions{})
	if err == nil && !s.flags.given("tp") {
		s.flags.TPs = plan.Options.TPs
	}
	return err
}

// variant is the name of the bundle's last folder; the sweep has a model.
func (s *sweep) variant() string {
	if s.flags.Variant != "" {
		return s.flags.Variant
	}
	name := perfio.VariantName(s.flags.DType, s.flags.KVCacheDType, s.Model)
	if profile.TPMode(s.flags.TPMode) == profile.RealTP {
		name += perfio.RealTPSuffix
	}
	return name
}

// dir is the bundle's folder; the sweep has a model.
func (s *sweep) dir() string {
	return filepath.Join(s.flags.Out, s.flags.Hardware, filepath.FromSlash(s.Model.ID), s.variant())
}

// limits are the plan's where no engine says them.
func (s *sweep) limits() profile.Limits {
	f := s.flags
	limits := profile.Limits{
		MaxNumBatchedTokens: f.MaxNumBatchedTokens,
		MaxNumSeqs:          f.MaxNumSeqs,
		MaxModelLen:         f.MaxModelLen,
		CacheTokens:         f.KVBlocks * f.BlockSize,
		BlockSize:           f.BlockSize,
	}
	if s.Model != nil {
		limits.MaxModelLen = cmp.Or(limits.MaxModelLen, s.Model.MaxPositionEmbeddings)
		limits.NumExperts, limits.TopK = s.Model.NumExperts, s.Model.NumExpertsPerToken
	}
	return limits
}

// engineSpec is what a driver is to boot for one degree; the sweep has a model.
func (s *sweep) engineSpec(tp int) profile.EngineSpec {
	f := s.flags
	return profile.EngineSpec{
		Model: s.Model, Architecture: s.Arch, TP: tp, TPMode: profile.TPMode(f.TPMode),
		DType: engineDType(f.DType, s.Model), KVCacheDType: f.KVCacheDType,
		MaxNumBatchedTokens: f.MaxNumBatchedTokens, MaxNumSeqs: f.MaxNumSeqs, MaxModelLen: f.MaxModelLen,
		KVBlocks: f.KVBlocks, Blocks: f.Blocks, Seed: f.Seed, EngineArgs: f.EngineArgs,
	}
}

// plan plans the degrees under one engine's limits. backend is the engine's
// attention backend, "" where none is known.
func (s *sweep) plan(limits profile.Limits, backend string) (*profile.Plan, error) {
	opts := s.options(backend)
	switch {
	case s.Source != nil:
		return profile.NewPlanFromBundle(s.Source, limits, s.Arch, opts)
	case s.planFile != nil:
		return profile.ReadPlan(bytes.NewReader(s.planFile), s.flags.PlanFile, limits, s.Arch, opts)
	}
	return profile.NewPlan(limits, s.Arch, opts)
}

// planTP plans one of the degrees, for an engine that was booted for it.
func (s *sweep) planTP(tp int, limits profile.Limits, backend string) (profile.TPPlan, error) {
	if s.Source == nil && s.planFile == nil {
		return profile.NewTPPlan(tp, limits, s.Arch, s.options(backend))
	}
	plan, err := s.plan(limits, backend)
	if err != nil {
		return profile.TPPlan{}, err
	}
	for _, p := range plan.TPs {
		if p.TP == tp {
			return p, nil
		}
	}
	return profile.TPPlan{TP: tp}, nil
}

func (s *sweep) options(backend string) profile.PlanOptions {
	opts := s.Options
	if opts.Kernel == "" {
		opts.Kernel = profile.KernelOf(backend)
	}
	return opts
}

// sourceUnfitted says whether the plan is taken from a bundle whose skew cases
// are not fitted.
func (s *sweep) sourceUnfitted() bool {
	if s.Source == nil {
		return false
	}
	fit := s.Source.Meta.SkewFit()
	return fit != nil && !fit.Enabled
}

// lacksExperts says whether the model has experts and no degree is planned at
// which they are measured.
func (s *sweep) lacksExperts() bool {
	return s.Arch != nil && len(s.Arch.Layers(string(profile.MoE))) > 0 && len(s.Options.TPs) > 0 && !slices.Contains(s.Options.TPs, 1)
}
