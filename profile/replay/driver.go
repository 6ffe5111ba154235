package replay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/layerprof/layerprof/internal/hardware"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/traceloader"
)

// Version changes whenever the same source and options give other answers.
const Version = "1"

// defaultDeadline ends an injected hang where the run sets no deadline.
const defaultDeadline = time.Minute

// Driver replays a Source; it implements profile.Driver.
type Driver struct {
	source *Source
	engine *engine
	closed atomic.Bool
}

var _ profile.Driver = (*Driver)(nil)

// engine is what Boot prepares for one degree.
type engine struct {
	source *Source
	spec   profile.EngineSpec
	limits profile.Limits
	tables *tables
	// lookups answer where there is no row; nil without Options.Interpolate.
	lookups *traceloader.Table
}

// Describe implements profile.Driver.
func (d *Driver) Describe(context.Context) (profile.Description, error) {
	pace := 50000.0
	if delay := d.source.options.Delay; delay > 0 {
		pace = 1 / delay.Seconds()
	}
	return profile.Description{Name: "replay", Version: Version, Origin: profile.Replayed, BatchShots: 64, PaceShotsPerSecond: pace}, nil
}

// Boot implements profile.Driver. The source's limits bound what the spec asks
// for, where its meta.yaml records them.
func (d *Driver) Boot(ctx context.Context, spec profile.EngineSpec) (*profile.Engine, error) {
	d.engine = nil
	if d.closed.Load() {
		return nil, errors.New("replay: the driver is closed")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if spec.Architecture == nil {
		return nil, errors.New("replay: no architecture")
	}
	s := d.source
	t := s.tps[spec.TP]
	if t == nil {
		return nil, fmt.Errorf("replay: %s has no tp%d", s.bundle.Dir, spec.TP)
	}
	meta := s.bundle.Meta
	if err := sameModel(meta, spec.Model); err != nil {
		return nil, fmt.Errorf("replay: %s: %w", s.bundle.Dir, err)
	}
	if real := spec.TPMode == profile.RealTP; real != (meta.TPMode() == string(profile.RealTP)) {
		return nil, fmt.Errorf("replay: %s: tp_mode: found %s, expected %s as was asked for", s.bundle.Dir, meta.TPMode(), modeName(real))
	}
	known := meta.Limits()
	e := &engine{source: s, spec: spec, tables: t, limits: profile.Limits{
		MaxNumBatchedTokens: bounded(spec.MaxNumBatchedTokens, known.MaxNumBatchedTokens),
		MaxNumSeqs:          bounded(spec.MaxNumSeqs, known.MaxNumSeqs),
		MaxModelLen:         bounded(spec.MaxModelLen, known.MaxModelLen),
		BlockSize:           known.BlockSize,
	}}
	if known.BlockSize == 0 {
		e.limits.BlockSize = 16 // the engine's default
	}
	e.limits.CacheTokens = spec.KVBlocks * e.limits.BlockSize
	if m := spec.Model; m != nil {
		e.limits.NumExperts, e.limits.TopK = m.NumExperts, m.NumExpertsPerToken
		if e.limits.MaxModelLen == 0 {
			e.limits.MaxModelLen = m.MaxPositionEmbeddings
		}
	}
	if s.options.Interpolate {
		var err error
		e.lookups, err = traceloader.New(s.bundle, traceloader.Options{Architecture: spec.Architecture, Model: spec.Model})
		if err != nil {
			return nil, fmt.Errorf("replay: interpolate: %w", err)
		}
	}
	d.engine = e
	sms := meta.SMCount()
	if sms == 0 {
		sms = hardware.SMCount(meta.GPU())
	}
	return &profile.Engine{
		Limits: e.limits, Fingerprint: e.fingerprint(), Provenance: e.provenance(), Origin: profile.Replayed,
		GPU: meta.GPU(), SMCount: sms, AttentionBackend: meta.AttentionBackend(), ModelRunner: meta.ModelRunner(),
		VLLMVersion: meta.VLLMVersion(), CUDAVersion: meta.CUDAVersion(), Catalog: e.catalog(),
	}, nil
}

// sameModel refuses a model that cannot be the one that the source was measured
// on: what was booted there is the model's own width divided by one degree.
func sameModel(meta *perfio.Meta, m *perfio.ModelConfig) error {
	if m == nil {
		return nil
	}
	degree := 0
	for _, field := range []struct {
		name  string
		value int
	}{
		{"intermediate_size", m.IntermediateSize}, {"num_attention_heads", m.NumAttentionHeads},
		{"num_key_value_heads", m.NumKeyValueHeads}, {"vocab_size", m.VocabSize},
	} {
		booted := meta.Int("engine_effective", "hf_overrides", field.name)
		if booted <= 0 || field.value <= 0 {
			continue
		}
		if degree == 0 {
			degree = field.value / booted
		}
		if degree == 0 || booted*degree != field.value {
			return fmt.Errorf("measured on %s with %s %d: found %s with %d, expected the same model, whose %[2]s is that times one tp degree",
				meta.Model(), field.name, booted, m.ID, field.value)
		}
	}
	return nil
}

func modeName(real bool) profile.TPMode {
	if real {
		return profile.RealTP
	}
	return profile.EmulatedTP
}

// bounded is what was asked for, at most what is known; 0 is unknown in both.
func bounded(asked, known int) int {
	if asked == 0 || (known > 0 && known < asked) {
		return known
	}
	return asked
}

// fingerprint names everything that changes a value.
func (e *engine) fingerprint() map[string]string {
	o := &e.source.options
	f := map[string]string{
		"driver": "replay", "driver_version": Version, "source_sha256": e.source.hash,
		"dtype": e.spec.DType, "kv_cache_dtype": e.spec.KVCacheDType,
		"interpolate": fmt.Sprint(o.Interpolate), "noise": fmt.Sprint(o.Noise), "drift": fmt.Sprint(o.Drift),
	}
	if o.Noise != 0 || o.Drift != 0 {
		f["seed"] = fmt.Sprint(o.Seed)
	}
	return f
}

func (e *engine) provenance() map[string]any {
	meta := e.source.bundle.Meta
	of := map[string]any{
		"bundle": filepath.Base(filepath.Clean(e.source.options.Bundle)), "sha256": e.source.hash,
		"origin": meta.Origin(), "hardware": meta.Hardware(), "model": meta.Model(),
		"variant": meta.Variant(),
	}
	if at := meta.ProfiledAt(); at != "" {
		of["profiled_at"] = at
	}
	for name, v := range map[string]float64{"noise": e.source.options.Noise, "drift": e.source.options.Drift} {
		if v != 0 {
			of[name] = v
		}
	}
	p := map[string]any{
		"origin":         string(profile.Replayed),
		"replayed_from":  of,
		"skew_statistic": meta.SkewStatistic(),
		"order":          string(profile.PrefillFirst), // of LLMServingSim's profiler, which does not say so
	}
	if order := meta.Text("order"); order != "" {
		p["order"] = order
	}
	if n := meta.Int("skew_sum_of"); n > 0 {
		p["skew_sum_of"] = n
	}
	if n := meta.MeasurementIterations(); n > 0 {
		p["measurement_iterations"] = n
	}
	if n := meta.Get("engine_effective"); n != nil {
		var effective map[string]any
		if n.Decode(&effective) == nil {
			p["engine_effective"] = effective
		}
	}
	return p
}

// catalog says which file has each layer's rows.
func (e *engine) catalog() []profile.CatalogMatch {
	out := make([]profile.CatalogMatch, 0, len(e.spec.Architecture.Catalog))
	for i := range e.spec.Architecture.Catalog {
		entry := &e.spec.Architecture.Catalog[i]
		m := profile.CatalogMatch{Layer: entry.Layer}
		if t := e.tablesOf(entry); t.has(entry) {
			m.Modules = []string{fmt.Sprintf("tp%d/%s.csv", t.degree, entry.Category)}
		}
		out = append(out, m)
	}
	return out
}

// tablesOf is the folder that a layer is answered from: tp1, if there is one,
// for what does not change with the degree.
func (e *engine) tablesOf(entry *perfio.CatalogEntry) *tables {
	if first := e.source.tps[1]; first != nil && e.spec.TPMode != profile.RealTP && (entry.TPStable || entry.Category == "moe") {
		return first
	}
	return e.tables
}

// Measure implements profile.Driver.
func (d *Driver) Measure(ctx context.Context, shots []profile.Shot, o profile.MeasureOptions, yield func(profile.Result) error) error {
	e := d.engine
	if e == nil {
		return errors.New("replay: Measure before Boot")
	}
	for i := range shots {
		if d.closed.Load() {
			return &profile.EngineLostError{Index: i, Err: errors.New("the driver was closed")}
		}
		r, err := e.measure(ctx, &shots[i], o)
		if err != nil {
			if lost := new(profile.EngineLostError); errors.As(err, &lost) {
				lost.Index = i
				d.engine = nil
			}
			return err
		}
		r.Index = i
		if err := yield(r); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) measure(ctx context.Context, shot *profile.Shot, o profile.MeasureOptions) (profile.Result, error) {
	s := e.source
	if reason := e.limits.Infeasible(shot.Groups); reason != "" {
		return profile.Result{Status: profile.Infeasible, Message: reason}, ctx.Err()
	}
	times, err := e.answer(shot, o.Layers)
	if err != nil {
		return profile.Result{Status: profile.Infeasible, Message: err.Error()}, ctx.Err()
	}
	key := keyOf(e.spec.TP, shot)
	attempt, second := s.attempt(key)
	if err := wait(ctx, s.options.Delay); err != nil {
		return profile.Result{}, err
	}
	switch s.fault(key, attempt) {
	case fails:
		return profile.Result{Status: profile.Failed, Message: fmt.Sprintf("injected failure of attempt %d", attempt)}, nil
	case crashes:
		return profile.Result{}, &profile.EngineLostError{
			LastWords: "replay: " + shown(shot), Err: fmt.Errorf("injected crash of attempt %d", attempt),
		}
	case hangs:
		deadline := o.Deadline
		if deadline == 0 {
			deadline = defaultDeadline
		}
		if err := wait(ctx, deadline); err != nil {
			return profile.Result{}, err
		}
		return profile.Result{}, &profile.EngineLostError{
			LastWords: "replay: " + shown(shot),
			Err:       fmt.Errorf("injected hang of attempt %d: no answer in %v: %w", attempt, deadline, context.DeadlineExceeded),
		}
	}
	var noise *rand.Rand
	if s.options.Noise > 0 {
		noise = s.draw(key, attempt, "noise")
	}
	n := max(o.Iterations, 1)
	r := profile.Result{Status: profile.OK, Layers: make([]profile.LayerResult, 0, len(times))}
	for _, t := range times {
		factor := 1.0
		if second {
			factor += s.options.Drift
		}
		l := profile.LayerResult{Layer: t.layer, SamplesUS: s.samples(t.timeUS*factor, n, noise), Calls: 1, Launches: 1}
		if t.kernels != nil {
			l.KernelsUS = make(map[string][]float64, len(t.kernels))
			for name, v := range t.kernels {
				share := v / t.timeUS
				split := make([]float64, n)
				for i := range split {
					split[i] = v
					if second || noise != nil {
						split[i] = share * l.SamplesUS[i]
					}
				}
				l.KernelsUS[name] = split
			}
		}
		r.Layers = append(r.Layers, l)
	}
	if e.spec.TPMode == profile.RealTP {
		r.Collectives = e.collectives(shot, n)
	}
	return r, nil
}

// wait sleeps unless the context ends first.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Close implements profile.Driver.
func (d *Driver) Close() error {
	d.closed.Store(true)
	return nil
}
