package vllmdriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/layerprof/layerprof/profile"
)

// Boot starts the engine in a worker that never had one. A refusal is a
// *StartError around a *WorkerError.
func (d *Driver) Boot(ctx context.Context, spec profile.EngineSpec) (*profile.Engine, error) {
	op, err := newBootRequest(spec)
	if err != nil {
		return nil, err
	}
	hash, err := configHash(op.Config)
	if err != nil {
		return nil, err
	}
	c, err := d.startAnew(ctx)
	if err != nil {
		return nil, err
	}
	if spec.TPMode == profile.RealTP && spec.TP > 1 && !slices.Contains(d.hello.Capabilities, capabilityRealTP) {
		return nil, d.refused(c, &WorkerError{Code: "boot", Message: fmt.Sprintf(
			"tp mode real: found the capabilities %v, expected %s among them", d.hello.Capabilities, capabilityRealTP)})
	}
	d.busy.Store(true)
	defer d.busy.Store(false)
	began := time.Now()
	var result bootResult
	booted := make(chan struct{})
	go c.process.noteUntil(booted)
	err = c.call(ctx, op, d.options.BootDeadline, &result)
	close(booted)
	if err == nil {
		err = result.Limits.check()
	}
	if err == nil {
		err = checkCatalog(op.Catalog, &result)
	}
	if err != nil {
		return nil, d.refused(c, err)
	}
	c.process.note()
	d.spec, d.limits = &spec, result.Limits
	d.expected = d.expected[:0]
	for _, e := range op.Catalog {
		d.expected = append(d.expected, e.Layer)
	}
	return d.engine(&result, op, hash, time.Since(began)), nil
}

func newBootRequest(spec profile.EngineSpec) (*bootRequest, error) {
	switch {
	case spec.Model == nil || spec.Architecture == nil:
		return nil, errors.New("boot: a model and its architecture are needed")
	case spec.TP < 1 || spec.MaxNumBatchedTokens < 1 || spec.MaxNumSeqs < 1:
		return nil, fmt.Errorf("boot: found tp %d, max_num_batched_tokens %d, max_num_seqs %d, expected at least 1",
			spec.TP, spec.MaxNumBatchedTokens, spec.MaxNumSeqs)
	}
	op := &bootRequest{
		request: request{Op: "boot"},
		Model:   spec.Model.ID, TP: spec.TP, TPMode: spec.TPMode, DType: spec.DType, KVCacheDType: cmp.Or(spec.KVCacheDType, "auto"),
		MaxNumBatchedTokens: spec.MaxNumBatchedTokens + spec.MaxNumSeqs, MaxNumSeqs: spec.MaxNumSeqs,
		MaxModelLen: cmp.Or(spec.MaxModelLen, spec.Model.MaxPositionEmbeddings),
		Blocks:      max(spec.Blocks, 1), EngineArgs: spec.EngineArgs, Seed: spec.Seed,
	}
	if op.EngineArgs == nil {
		op.EngineArgs = map[string]string{}
	}
	var err error
	divisor := spec.TP
	switch spec.TPMode {
	case profile.RealTP:
		divisor = 1 // the engine divides, or says why it cannot
	case "", profile.EmulatedTP:
		op.TPMode = "" // as workers that know no other have it
	default:
		return nil, fmt.Errorf("boot: tp mode: found %q, expected %s or %s", spec.TPMode, profile.EmulatedTP, profile.RealTP)
	}
	if op.Config, err = engineConfig(spec.Model, divisor, op.Blocks); err != nil {
		return nil, err
	}
	for _, e := range spec.Architecture.Catalog {
		op.Catalog = append(op.Catalog, catalogEntry{Layer: e.Layer, Category: e.Category, VLLM: e.VLLM, Within: e.Within})
	}
	return op, nil
}

// checkCatalog: an entry without a module would have no rows.
func checkCatalog(catalog []catalogEntry, result *bootResult) error {
	modules := make(map[string]int)
	for _, m := range result.Catalog {
		modules[m.Layer] = len(m.Modules)
	}
	for _, e := range catalog {
		if modules[e.Layer] == 0 {
			return &WorkerError{Code: "catalog", Message: fmt.Sprintf("the catalog's %s (%s) matches no module of the engine",
				e.Layer, strings.Join(e.VLLM, " or "))}
		}
	}
	return nil
}

func (d *Driver) engine(result *bootResult, op *bootRequest, hash string, took time.Duration) *profile.Engine {
	spec := d.spec
	e := &profile.Engine{
		Limits: profile.Limits{
			MaxNumBatchedTokens: spec.MaxNumBatchedTokens,
			MaxNumSeqs:          spec.MaxNumSeqs,
			MaxModelLen:         cmp.Or(result.Limits.MaxModelLen, op.MaxModelLen),
			CacheTokens:         result.Limits.CacheTokens,
			BlockSize:           max(result.Limits.BlockSize, 1),
			NumExperts:          result.Limits.NumExperts,
			TopK:                result.Limits.TopK,
		},
		Origin: d.hello.Origin, GPU: result.GPU, SMCount: result.SMCount, AttentionBackend: result.AttentionBackend,
		ModelRunner: result.ModelRunner, CUDAVersion: result.CUDAVersion, UnmatchedModules: result.UnmatchedModules,
	}
	if d.hello.Name == "vllm" {
		e.VLLMVersion = result.EngineVersion
	}
	// The engine may have less than it was asked for.
	if n := result.Limits.MaxNumSeqs; n > 0 {
		e.Limits.MaxNumSeqs = min(e.Limits.MaxNumSeqs, n)
	}
	if n := result.Limits.MaxNumBatchedTokens; n > 0 {
		e.Limits.MaxNumBatchedTokens = max(1, min(e.Limits.MaxNumBatchedTokens, n-e.Limits.MaxNumSeqs))
	}
	for _, m := range result.Catalog {
		e.Catalog = append(e.Catalog, profile.CatalogMatch{Layer: m.Layer, Modules: m.Modules})
	}
	e.Fingerprint = maps.Clone(result.Fingerprint)
	if e.Fingerprint == nil {
		e.Fingerprint = make(map[string]string)
	}
	for k, v := range map[string]string{
		"driver": d.name, "worker": d.hello.Name, "engine_version": cmp.Or(result.EngineVersion, d.hello.Version),
		"gpu": result.GPU, "attention_backend": result.AttentionBackend, "model_runner": result.ModelRunner,
		"dtype": op.DType, "kv_cache_dtype": op.KVCacheDType, "blocks": fmt.Sprint(op.Blocks), "config_sha256": hash,
	} {
		if _, said := e.Fingerprint[k]; !said && v != "" {
			e.Fingerprint[k] = v
		}
	}
	for k, v := range op.EngineArgs {
		e.Fingerprint["engine_args."+k] = v
	}
	e.Provenance = maps.Clone(result.Provenance)
	if e.Provenance == nil {
		e.Provenance = make(map[string]any)
	}
	host := map[string]any{
		"name": d.hello.Name, "version": d.hello.Version, "protocol": ProtocolVersion, "boot_seconds": float64(took.Milliseconds()) / 1000,
		"config_sha256": hash,
	}
	if d.hash != "" {
		host["source_sha256"] = d.hash
	}
	env := make(map[string]any, len(d.record))
	for k, v := range d.record {
		env[k] = v
	}
	host["environment"] = env
	e.Provenance["worker"] = host
	return e
}
