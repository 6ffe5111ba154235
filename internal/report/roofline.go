package report

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/internal/hardware"
	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
	driver "github.com/layerprof/layerprof/profile/roofline"
)

// maxRoofline is at how many positions of a curve the roofline is computed.
const maxRoofline = 160

// roofline answers for a bundle's layers what profile/roofline computes for
// its device and model.
type roofline struct {
	booted   map[int]*driver.Driver // by degree; nil: it does not boot
	problems map[int]error          // why
	spec     profile.EngineSpec
	device   *hardware.Spec
}

// newRoofline says why there is none.
func newRoofline(b *perfio.Bundle) (*roofline, string) {
	m := b.Meta
	spec, ok := hardware.ByName(m.GPU())
	if !ok {
		spec, ok = hardware.ByKey(m.Hardware())
	}
	if !ok {
		return nil, fmt.Sprintf("the figures of %q are not known", m.Hardware())
	}
	arch, err := perfio.LoadArchitecture(m.Architecture())
	if err != nil {
		return nil, fmt.Sprintf("no architecture %q is shipped", m.Architecture())
	}
	// A bundle names a shipped config, and no file of this machine.
	if !slices.Contains(perfio.ModelConfigs(), m.Model()) {
		return nil, fmt.Sprintf("no config of %q is shipped", m.Model())
	}
	model, err := perfio.LoadModelConfig(m.Model())
	if err != nil {
		return nil, err.Error()
	}
	limits := m.Limits()
	dtype, kv := m.Text("engine_effective", "dtype"), m.Text("engine_effective", "kv_cache_dtype")
	if kv == "" && strings.HasSuffix(m.Variant(), "kvfp8") {
		kv = "fp8"
	}
	return &roofline{
		booted: map[int]*driver.Driver{}, problems: map[int]error{}, device: spec,
		spec: profile.EngineSpec{
			Model: model, Architecture: arch, DType: dtype, KVCacheDType: kv, Blocks: 1,
			// Limits that no row of the tables exceeds.
			MaxNumBatchedTokens: max(limits.MaxNumBatchedTokens, perfio.MaxKey), MaxNumSeqs: max(limits.MaxNumSeqs, perfio.MaxKey),
			MaxModelLen: 2 * perfio.MaxKey,
		},
	}, ""
}

// curve is a layer's time at each position, nil where there is none.
func (r *roofline) curve(key tidy.Key, at []int) []float64 {
	d, ok := r.booted[key.TP]
	if !ok {
		d, r.problems[key.TP] = r.boot(key.TP)
		r.booted[key.TP] = d
	}
	if d == nil {
		return nil
	}
	shots := make([]profile.Shot, len(at))
	for i, x := range at {
		g := profile.Group{Count: 1, NewTokens: x} // one request of x tokens
		if key.Table == "per_sequence" {
			g = profile.Group{Count: x, NewTokens: 1}
		}
		shots[i] = profile.Shot{Groups: []profile.Group{g}}
	}
	out := make([]float64, len(at))
	answered := 0
	err := d.Measure(context.Background(), shots, profile.MeasureOptions{Iterations: 1, Layers: []string{key.Layer}}, func(res profile.Result) error {
		if res.Status == profile.OK && len(res.Layers) == 1 {
			out[res.Index] = digits(res.Layers[0].SamplesUS[0], 4)
			answered++
		}
		return nil
	})
	if err != nil || answered < len(at) {
		return nil
	}
	return out
}

func (r *roofline) boot(tp int) (*driver.Driver, error) {
	d, err := driver.New(driver.Options{Spec: r.device})
	if err != nil {
		return nil, err
	}
	spec := r.spec
	spec.TP = tp
	if _, err := d.Boot(context.Background(), spec); err != nil {
		return nil, err
	}
	return d, nil
}
