package profile

import (
	"math"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/perfio"
)

// deriver turns a degree's part of the journal into its tables.
type deriver struct {
	index *journalIndex
	envs  []string
	tp    int
	share bool
	drift *driftModel
	arch  *perfio.Architecture
	// skewFactor is what a new skew time is multiplied by: 1, but where rows
	// stand beside older ones that are sums of several runs.
	skewFactor float64
	samples    []float64 // of single
	tables     perfio.TP
	validation []perfio.BatchRow
}

// layerValue is what all samples of one layer amount to.
type layerValue struct {
	us       float64
	spreadUS float64
	n        int
	kernels  map[string]float64
}

// measured gathers what the journal holds of a shot. ok is false where a layer
// is missing.
func (v *deriver) measured(shot *Shot, layers []string) (values map[string]layerValue, records []stored, ok bool) {
	samples := make(map[string][]float64, len(layers))
	kernels := make(map[string]map[string][]float64)
	v.index.each(v.envs, v.tp, shotScope(shot), shot.Shape(), v.share && shot.Category.Shares(), func(s stored) {
		factor := v.drift.factor(s.block)
		if factor != 1 {
			v.drift.Corrected++
		}
		used := false
		for i := range s.Layers {
			l := &s.Layers[i]
			if !slices.Contains(layers, l.Layer) {
				continue
			}
			used = true
			for _, us := range l.US {
				samples[l.Layer] = append(samples[l.Layer], us/factor)
			}
			for name, list := range l.Kernels {
				if kernels[l.Layer] == nil {
					kernels[l.Layer] = make(map[string][]float64)
				}
				for _, us := range list {
					kernels[l.Layer][name] = append(kernels[l.Layer][name], us/factor)
				}
			}
		}
		if used {
			records = append(records, s)
		}
	})
	values = make(map[string]layerValue, len(layers))
	for _, layer := range layers {
		us := samples[layer]
		if len(us) == 0 {
			return nil, nil, false
		}
		value := layerValue{spreadUS: medianDeviation(us), n: len(us), us: median(us)}
		for name, list := range kernels[layer] {
			if value.kernels == nil {
				value.kernels = make(map[string]float64)
			}
			value.kernels[name] = median(list)
		}
		values[layer] = value
	}
	return values, records, true
}

// sample is what a table has of one layer in a shot.
type sample struct {
	us float64
	// imported: the value is an earlier table's, which goes before all others;
	// alpha is what its row of skew.csv had, if any.
	imported bool
	alpha    *float64
	skew     bool // it stood in skew.csv
}

// single is measured for one layer, without its kernels and spread: most of a
// bundle is made of it.
func (v *deriver) single(shot *Shot, layer string) (out sample, ok bool) {
	v.samples = v.samples[:0]
	v.index.each(v.envs, v.tp, shotScope(shot), shot.Shape(), v.share, func(s stored) {
		for i := range s.Layers {
			l := &s.Layers[i]
			// The shot's own records come before those of its shape: the first
			// value from an earlier table is the one.
			if l.Layer != layer || out.imported {
				continue
			}
			if s.Imported {
				v.samples = v.samples[:0]
				out = sample{imported: true, alpha: s.Alpha, skew: strings.HasPrefix(s.Scope, "skew:")}
			}
			factor := v.drift.factor(s.block)
			if factor != 1 {
				v.drift.Corrected++
			}
			for _, us := range l.US {
				v.samples = append(v.samples, us/factor)
			}
		}
	})
	out.us = median(v.samples)
	return out, len(v.samples) > 0
}

// derive fills the tables with the plan's shots, as far as they are measured.
func (v *deriver) derive(plan *TPPlan) {
	v.tables.Degree = v.tp
	for i := range plan.Categories {
		c := &plan.Categories[i]
		switch c.Category {
		case Dense, PerSequence, Attention, MoE:
			v.table(c)
		case Skew:
			v.skew(c)
		case Batches:
			v.tables.Batches = v.batches(c)
		case Validation:
			v.validation = v.batches(c)
		}
	}
	v.collectives(plan)
}

func (v *deriver) table(c *CategoryPlan) {
	for i := range c.Shots {
		shot := &c.Shots[i]
		for _, layer := range v.wanted(c, i) {
			found, ok := v.single(shot, layer)
			if !ok {
				continue
			}
			us := found.us
			switch c.Category {
			case Dense:
				v.tables.Dense = append(v.tables.Dense, perfio.DenseRow{Layer: layer, Tokens: shot.Tokens(), TimeUS: us})
			case PerSequence:
				v.tables.PerSequence = append(v.tables.PerSequence, perfio.SequenceRow{Layer: layer, Sequences: shot.Sequences(), TimeUS: us})
			case Attention:
				p := shot.Point
				v.tables.Attention = append(v.tables.Attention, perfio.AttentionRow{
					PrefillChunk: p.PrefillChunk, KVPrefill: p.KVPrefill, NDecode: p.NDecode, KVDecode: p.KVDecode, TimeUS: us,
				})
			case MoE:
				v.tables.MoE = append(v.tables.MoE, perfio.MoERow{Tokens: shot.Tokens(), ActivatedExperts: shot.Experts, TimeUS: us})
			}
		}
	}
}

func (v *deriver) wanted(c *CategoryPlan, i int) []string { return plannedLayers(c, i, v.arch) }

// plannedLayers are the layers that a shot is measured for, where the plan
// leaves them open too.
func plannedLayers(c *CategoryPlan, i int, arch *perfio.Architecture) []string {
	if layers := c.LayersOf(i); layers != nil {
		return layers
	}
	switch c.Category {
	case Dense, PerSequence, Attention, MoE:
		return arch.Layers(string(c.Category))
	case Skew:
		return arch.Layers(string(Attention))
	}
	names := make([]string, 0, len(arch.Catalog))
	for _, e := range arch.Catalog {
		names = append(names, e.Layer)
	}
	return names
}

// skew makes the rows of the cases all of whose batches are measured.
func (v *deriver) skew(c *CategoryPlan) {
	for i := range c.Cases {
		k := &c.Cases[i]
		row := perfio.SkewRow{
			Regime: "mixed", N: k.N, NB: k.NB, Ratio: k.Ratio, Skew: k.Skew,
			PC: k.PC, KP: k.KP, KVS: k.KVS, KVBig: k.KVBig, KVMean: k.KVMean,
		}
		if k.PC == 0 {
			row.Regime = "pure"
		}
		whole, early := true, true // early: all of it is from an earlier file
		var alpha *float64
		for j, us := range []*float64{&row.TMeanUS, &row.TMaxUS, &row.TSkewUS} {
			layers := v.wanted(c, 3*i+j)
			if len(layers) != 1 {
				whole = false
				break
			}
			found, ok := v.single(&c.Shots[3*i+j], layers[0])
			if !ok {
				whole = false
				break
			}
			*us = found.us
			if !found.skew {
				*us *= v.skewFactor
			}
			early = early && found.skew
			if found.alpha != nil {
				alpha = found.alpha
			}
		}
		if !whole {
			continue
		}
		row.Alpha, row.HasAlpha = skewAlpha(&row)
		if early {
			// An earlier file's alpha was made of times that were not rounded.
			row.Alpha, row.HasAlpha = 0, alpha != nil
			if alpha != nil {
				row.Alpha = *alpha
			}
		}
		v.tables.Skew = append(v.tables.Skew, row)
	}
}

// skewAlpha is a row's alpha, from times that are not rounded yet.
func skewAlpha(row *perfio.SkewRow) (alpha float64, ok bool) {
	if !(row.TMaxUS > row.TMeanUS) {
		return 0, false
	}
	return (row.TSkewUS - row.TMeanUS) / (row.TMaxUS - row.TMeanUS), true
}

// batches makes the rows of a category of random batches.
func (v *deriver) batches(c *CategoryPlan) []perfio.BatchRow {
	var rows []perfio.BatchRow
	for i := range c.Shots {
		shot := &c.Shots[i]
		values, records, ok := v.measured(shot, v.wanted(c, i))
		if !ok {
			continue
		}
		row := perfio.BatchRow{
			Requests: shot.Requests(), MeasuredUS: make(map[string]float64), SpreadUS: make(map[string]float64),
			N: math.MaxInt, Kind: perfio.KindOf(shot.Requests()),
		}
		var steps []float64
		for _, s := range records {
			steps = append(steps, s.StepUS...)
			if len(s.Executed) > 0 {
				row.Requests = Shot{Groups: s.Executed}.Requests()
			}
		}
		row.StepUS = median(steps)
		for layer, value := range values {
			row.MeasuredUS[layer] = shortUS(value.us)
			row.SpreadUS[layer] = shortUS(value.spreadUS)
			row.N = min(row.N, value.n)
			for name, us := range value.kernels {
				if row.KernelsUS == nil {
					row.KernelsUS = make(map[string]float64)
				}
				row.KernelsUS[strings.TrimSpace(name)] = shortUS(us)
			}
		}
		row.StepUS = shortUS(row.StepUS)
		row.CollectivesUS = collectivesByLayer(records)
		rows = append(rows, row)
	}
	return rows
}

// shortUS rounds to a nanosecond's thousandth: more digits say nothing.
func shortUS(us float64) float64 { return math.Round(us*1e6) / 1e6 }
