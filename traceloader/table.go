package traceloader

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/layerprof/layerprof/perfio"
)

// Table answers lookups for one measured bundle. It is immutable: no method
// changes anything, and any number of goroutines may use one Table. To reload,
// build another and swap an atomic.Pointer in the caller.
type Table struct {
	options  Options
	arch     *perfio.Architecture
	model    *perfio.ModelConfig
	tps      []tpTable // ascending
	warnings []string

	calibration *Calibration // of the accurate rules

	// realTP: each degree is an engine of that many ranks, and every layer's
	// rows are its own.
	realTP bool
}

// tpTable holds the lookups of one tp folder as the rules shaped them.
type tpTable struct {
	degree      int
	dense       map[string]*curve
	perSequence map[string]*curve
	attention   attentionRules // nil where nothing was measured
	grid        *grid
	packed      *packed
	alpha       *alphaTable
	moe         *moeTable

	steps        []perfio.StepRow
	captureSizes map[StepMode][]int
	collectives  map[string]*curve // by layer
}

// New builds a table from a bundle, which it does not keep. The error joins all
// that is wrong, each as "tp1: dense.csv: …".
func New(b *perfio.Bundle, o Options) (*Table, error) {
	if b == nil || len(b.TPs) == 0 {
		return nil, errors.New("traceloader: bundle: found no tp folder, expected one or more")
	}
	t := &Table{options: o, arch: o.Architecture, model: o.Model, tps: make([]tpTable, len(b.TPs))}
	t.realTP = b.Meta != nil && b.Meta.TPMode() == perfio.TPModeReal
	if err := t.resolveModel(b.Meta); err != nil {
		return nil, err
	}
	builds := make([]*tpBuild, len(b.TPs))
	var wait sync.WaitGroup
	for i := range b.TPs {
		builds[i] = &tpBuild{table: &t.tps[i], rows: &b.TPs[i], bundle: b, options: &t.options}
		builds[i].start(&wait)
	}
	wait.Wait()
	var errs []error
	for _, w := range b.Warnings {
		t.warnings = append(t.warnings, w.Error())
	}
	for _, build := range builds {
		build.finish()
		errs = append(errs, build.errs()...)
		t.warnings = append(t.warnings, build.warnings()...)
	}
	slices.SortStableFunc(t.tps, func(x, y tpTable) int { return x.degree - y.degree })
	for i := range t.tps[1:] {
		if d := t.tps[i].degree; d == t.tps[i+1].degree {
			errs = append(errs, fmt.Errorf("tp%d: found twice, expected each degree once", d))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if o.Rules == Accurate {
		applyAccurate(t, b, &t.options)
	}
	if o.Refuse {
		for i := range t.tps {
			if t.tps[i].attention != nil {
				t.tps[i].attention = refusing{t.tps[i].attention}
			}
		}
	}
	return t, nil
}

// Warnings says what was taken leniently and which defaults stand in for
// missing tables. The slice is the caller's.
func (t *Table) Warnings() []string { return slices.Clone(t.warnings) }

// Rules returns the rules by which t answers.
func (t *Table) Rules() Rules { return t.options.Rules }

// TPs returns the tensor-parallel degrees, ascending. The slice is the caller's.
func (t *Table) TPs() []int {
	var tps []int
	for i := range t.tps {
		tps = append(tps, t.tps[i].degree)
	}
	return tps
}

// Architecture returns the architecture that the table goes by, nil where none
// is known; it is shared and must not be changed.
func (t *Table) Architecture() *perfio.Architecture { return t.arch }

// Model returns the model's config, nil where none is known; it is shared and
// must not be changed.
func (t *Table) Model() *perfio.ModelConfig { return t.model }

func (t *Table) tp(degree int) *tpTable {
	for i := range t.tps {
		if t.tps[i].degree == degree {
			return &t.tps[i]
		}
	}
	return nil
}

// tpFor is tp, but for a layer that the architecture marks tp_stable it is tp1
// where that was measured and the degrees are emulated.
func (t *Table) tpFor(degree int, layer, category string) *tpTable {
	if e := t.catalogEntry(layer); e != nil && e.TPStable && e.Category == category && !t.realTP {
		if one := t.tp(1); one != nil {
			return one
		}
	}
	return t.tp(degree)
}

func (t *Table) catalogEntry(layer string) *perfio.CatalogEntry {
	if t.arch == nil {
		return nil
	}
	return t.arch.Entry(layer)
}

// Dense returns the handle to a dense layer's latency over the tokens of a
// step; false where it was not measured at this tp.
func (t *Table) Dense(tp int, layer string) (Curve, bool) {
	if f := t.tpFor(tp, layer, categoryDense); f != nil {
		c, ok := f.dense[layer]
		return Curve{c}, ok
	}
	return Curve{}, false
}

// PerSequence returns the handle to a per-sequence layer's latency over the
// sequences of a step; false where it was not measured at this tp.
func (t *Table) PerSequence(tp int, layer string) (Curve, bool) {
	if f := t.tpFor(tp, layer, categoryPerSequence); f != nil {
		c, ok := f.perSequence[layer]
		return Curve{c}, ok
	}
	return Curve{}, false
}

// Attention returns the handle to attention; false where it was not measured
// at this tp.
func (t *Table) Attention(tp int) (Attention, bool) {
	f := t.tp(tp)
	if f == nil || f.attention == nil {
		return Attention{}, false
	}
	return Attention{f.attention}, true
}

// MoE returns the handle to the sparse block, which is measured at tp1: it is
// the same for all degrees. Without a tp1 folder the smallest degree counts.
// False where that one has no rows.
func (t *Table) MoE() (MoE, bool) {
	if len(t.tps) == 0 || t.tps[0].moe == nil {
		return MoE{}, false
	}
	return MoE{t.tps[0].moe}, true
}

// moeFor is MoE at one degree: its own rows where the degrees are real.
func (t *Table) moeFor(tp int) (MoE, bool) {
	if !t.realTP {
		return t.MoE()
	}
	f := t.tp(tp)
	if f == nil || f.moe == nil {
		return MoE{}, false
	}
	return MoE{f.moe}, true
}

// SkewAlpha returns the correction for decodes of different history that the
// bundle's fit gives a batch, and where it stood: Measured for a bucket,
// Fallback for a default. The coordinates are those of Attention.SkewLatencyNS.
func (t *Table) SkewAlpha(tp, prefillChunk, kvPrefill, nDecode, kvMean, kvMax, kvMin int) (float64, Status) {
	f := t.tp(tp)
	if f == nil || f.alpha == nil {
		return 0, Unanswered
	}
	return f.alpha.lookup(prefillChunk, kvPrefill, nDecode, kvMean, kvMax, kvMin)
}

// CategoryCollective is the category of what a step has between its layers where
// the degrees are real. The catalog has no such.
const CategoryCollective = "collective"

// Names of the catalog's categories.
const (
	categoryDense       = "dense"
	categoryPerSequence = "per_sequence"
	categoryAttention   = "attention"
	categoryMoE         = "moe"
)
