package roofline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/layerprof/layerprof/internal/hardware"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// Version changes whenever the model gives other times.
const Version = "1"

// Options configure a Driver.
type Options struct {
	// Spec is the device; required.
	Spec *hardware.Spec
}

// Driver computes latencies; it implements profile.Driver.
type Driver struct {
	spec   *hardware.Spec
	device device
	engine *engine
}

var _ profile.Driver = (*Driver)(nil)

// engine is what Boot prepares for one model and degree.
type engine struct {
	spec     profile.EngineSpec
	limits   profile.Limits
	dims     dims
	layers   []layer
	schedule schedule
}

// New makes a driver for one device.
func New(o Options) (*Driver, error) {
	if o.Spec == nil {
		return nil, errors.New("roofline: Options.Spec is missing")
	}
	if _, ok := families[o.Spec.Attention]; !ok {
		return nil, fmt.Errorf("roofline: Options.Spec.Attention: unknown kernel %q", o.Spec.Attention)
	}
	return &Driver{spec: o.Spec, device: newDevice(o.Spec)}, nil
}

// Describe implements profile.Driver.
func (d *Driver) Describe(context.Context) (profile.Description, error) {
	return profile.Description{
		Name: "roofline", Version: Version, Origin: profile.Synthetic,
		ShareRepeats: true, BatchShots: 256, PaceShotsPerSecond: 20000,
	}, nil
}

// Boot implements profile.Driver. Its errors name what the model or the
// device's specification lacks.
func (d *Driver) Boot(_ context.Context, spec profile.EngineSpec) (*profile.Engine, error) {
	d.engine = nil
	e, err := d.boot(spec)
	if err != nil {
		return nil, fmt.Errorf("roofline: %w", err)
	}
	d.engine = e
	matches := make([]profile.CatalogMatch, 0, len(e.layers))
	for i, l := range e.layers {
		matches = append(matches, profile.CatalogMatch{Layer: l.name, Modules: spec.Architecture.Catalog[i].VLLM})
	}
	return &profile.Engine{
		Limits: e.limits,
		Fingerprint: map[string]string{
			"driver": "roofline", "driver_version": Version,
			"hardware": d.spec.Key, "specification": specText(d.spec),
			"model": modelText(spec.Model), "dtype": spec.DType, "kv_cache_dtype": spec.KVCacheDType,
		},
		Provenance: map[string]any{
			"origin": string(profile.Synthetic),
			"roofline": map[string]any{
				"version": Version, "hardware": d.spec.Key, "sources": d.spec.Sources,
			},
		},
		Origin: profile.Synthetic, GPU: d.name(), SMCount: d.spec.SMCount(),
		AttentionBackend: backends[d.spec.Attention],
		Catalog:          matches,
	}, nil
}

// backends are the kernels by the name that an engine reports.
var backends = map[hardware.AttentionKernel]string{
	hardware.FlashAttention2: "FlashAttention 2",
	hardware.FlashAttention3: "FlashAttention 3",
}

func (d *Driver) name() string {
	if len(d.spec.Names) > 0 {
		return d.spec.Names[0]
	}
	return d.spec.Key
}

func (d *Driver) boot(spec profile.EngineSpec) (*engine, error) {
	switch {
	case spec.Model == nil:
		return nil, errors.New("no model config")
	case spec.Architecture == nil:
		return nil, errors.New("no architecture")
	case spec.TPMode == profile.RealTP && spec.TP > 1:
		return nil, errors.New("tp mode: found real, expected emulated: a specification says nothing of the links between devices")
	case spec.TP < 1:
		return nil, fmt.Errorf("tp: found %d, expected at least 1", spec.TP)
	case spec.MaxNumBatchedTokens < 1 || spec.MaxNumSeqs < 1:
		return nil, fmt.Errorf("limits: max_num_batched_tokens %d and max_num_seqs %d must be at least 1", spec.MaxNumBatchedTokens, spec.MaxNumSeqs)
	}
	m, err := divide(spec.Model, spec.TP)
	if err != nil {
		return nil, err
	}
	dtype := spec.DType
	if dtype == "" || dtype == "auto" {
		dtype = spec.Model.TorchDType
	}
	rate, size, err := d.rate(dtype)
	if err != nil {
		return nil, err
	}
	m.weightBytes = size
	m.activationBytes = math.Max(size, 2)
	m.kvBytes = m.activationBytes
	if k := spec.KVCacheDType; k != "" && k != "auto" {
		if m.kvBytes, err = elementBytes(k); err != nil {
			return nil, fmt.Errorf("kv_cache_dtype: %w", err)
		}
	}
	m.peakPerUnit = rate * 1e6 / d.device.units
	e := &engine{spec: spec, dims: m, limits: profile.Limits{
		MaxNumBatchedTokens: spec.MaxNumBatchedTokens, MaxNumSeqs: spec.MaxNumSeqs,
		MaxModelLen: spec.MaxModelLen, BlockSize: 16,
		CacheTokens: 16 * spec.KVBlocks,
		NumExperts:  spec.Model.NumExperts, TopK: spec.Model.NumExpertsPerToken,
	}}
	if e.limits.MaxModelLen == 0 {
		e.limits.MaxModelLen = spec.Model.MaxPositionEmbeddings
	}
	e.layers, err = bindLayers(&d.device, &e.dims, spec.Architecture)
	return e, err
}

// rate is the device's matrix rate for a data type in TFLOPS, and the bytes of
// an element.
func (d *Driver) rate(dtype string) (tflops, size float64, err error) {
	size, err = elementBytes(dtype)
	if err != nil {
		return 0, 0, fmt.Errorf("dtype: %w", err)
	}
	name := canonical(dtype)
	if tflops, ok := d.spec.PeakTFLOPS[name]; ok {
		return tflops, size, nil
	}
	var known []string
	for k := range d.spec.PeakTFLOPS {
		known = append(known, k)
	}
	return 0, 0, fmt.Errorf("dtype %s: the specification of %s has no rate for it, only for %s", dtype, d.spec.Key, sortedList(known))
}

func canonical(dtype string) string {
	switch {
	case dtype == "half":
		return "float16"
	case dtype == "float":
		return "float32"
	case strings.HasPrefix(dtype, "fp8"):
		return "fp8"
	}
	return dtype
}

func elementBytes(dtype string) (float64, error) {
	switch canonical(dtype) {
	case "float64":
		return 8, nil
	case "float32":
		return 4, nil
	case "bfloat16", "float16":
		return 2, nil
	case "fp8", "int8":
		return 1, nil
	case "fp4", "int4":
		return 0.5, nil
	}
	return 0, fmt.Errorf("found %q, expected bfloat16, float16, float32, fp8, int8, fp4 or int4", dtype)
}

// Measure implements profile.Driver.
func (d *Driver) Measure(ctx context.Context, shots []profile.Shot, o profile.MeasureOptions, yield func(profile.Result) error) error {
	e := d.engine
	if e == nil {
		return errors.New("roofline: Measure before Boot")
	}
	var wanted map[string]bool
	if o.Layers != nil {
		wanted = make(map[string]bool, len(o.Layers))
		for _, l := range o.Layers {
			wanted[l] = true
		}
	}
	for i, shot := range shots {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := d.measure(e, shot, wanted, max(o.Iterations, 1))
		r.Index = i
		if err := yield(r); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) measure(e *engine, shot profile.Shot, wanted map[string]bool, n int) profile.Result {
	for _, g := range shot.Groups {
		if g.Count < 1 || g.NewTokens < 1 || g.KVHistory < 0 {
			return profile.Result{Status: profile.Failed, Message: fmt.Sprintf("%dx%d@%d is no group of requests", g.Count, g.NewTokens, g.KVHistory)}
		}
	}
	if len(shot.Groups) == 0 {
		return profile.Result{Status: profile.Failed, Message: "the batch is empty"}
	}
	if reason := e.limits.Infeasible(shot.Groups); reason != "" {
		return profile.Result{Status: profile.Infeasible, Message: reason}
	}
	b := batch{tokens: float64(shot.Tokens()), sequences: float64(shot.Sequences())}
	r := profile.Result{Status: profile.OK, Layers: make([]profile.LayerResult, 0, len(e.layers))}
	for _, l := range e.layers {
		if wanted != nil && !wanted[l.name] {
			continue
		}
		lr := profile.LayerResult{Layer: l.name, Calls: l.calls, Launches: l.calls}
		switch l.kind {
		case attentionLayer:
			t := d.device.attention(&e.dims, shot.Groups, &e.schedule)
			lr.SamplesUS = repeat(t.total(), n)
			lr.KernelsUS = map[string][]float64{"flash": repeat(t.flash, n), "cache_write": repeat(t.cacheWrite, n)}
			lr.Launches = 2
			if t.combine > 0 {
				lr.KernelsUS["combine"] = repeat(t.combine, n)
				lr.Launches = 3
			}
		case moeLayer:
			lr.SamplesUS = repeat(d.device.moe(&e.dims, b.tokens, e.experts(shot, b.tokens)), n)
		default:
			lr.SamplesUS = repeat(l.timeUS(b), n)
		}
		r.Layers = append(r.Layers, lr)
	}
	return r
}

// experts is the number of distinct experts that the shot's routing activates;
// without any routing each token chooses at random.
func (e *engine) experts(shot profile.Shot, tokens float64) float64 {
	if shot.Experts > 0 {
		return float64(shot.Experts)
	}
	if shot.Histogram != nil {
		n := 0
		for _, c := range shot.Histogram {
			if c > 0 {
				n++
			}
		}
		return math.Max(float64(n), 1)
	}
	all, k := float64(e.dims.experts), float64(e.dims.topK)
	return all * (1 - math.Pow(1-k/all, tokens))
}

// Close implements profile.Driver.
func (d *Driver) Close() error { return nil }

func repeat(v float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func modelText(m *perfio.ModelConfig) string {
	return strings.Join([]string{
		m.ModelType, strconv.Itoa(m.HiddenSize), strconv.Itoa(m.IntermediateSize), strconv.Itoa(m.MoEIntermediateSize),
		strconv.Itoa(m.NumAttentionHeads), strconv.Itoa(m.NumKeyValueHeads), strconv.Itoa(m.HeadDim),
		strconv.Itoa(m.VocabSize), strconv.Itoa(m.NumExperts), strconv.Itoa(m.NumExpertsPerToken),
	}, "/")
}
