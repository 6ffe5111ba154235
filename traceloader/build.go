package traceloader

import (
	"fmt"
	"slices"
	"sync"

	"github.com/layerprof/layerprof/perfio"
)

// tpBuild builds the tables of one tp folder, each file in its own goroutine.
// Errors and warnings are kept by file, so that their order does not depend on
// which was done first.
type tpBuild struct {
	table   *tpTable
	rows    *perfio.TP
	bundle  *perfio.Bundle
	options *Options
	jobs    []*fileBuild
}

type fileBuild struct {
	name  string
	err   error
	warns []string
}

func (f *fileBuild) warn(format string, args ...any) {
	f.warns = append(f.warns, fmt.Sprintf(format, args...))
}

func (b *tpBuild) job(wait *sync.WaitGroup, name string, run func(*fileBuild) error) {
	f := &fileBuild{name: name}
	b.jobs = append(b.jobs, f)
	wait.Go(func() { f.err = run(f) })
}

func (b *tpBuild) start(wait *sync.WaitGroup) {
	t, rows, o := b.table, b.rows, b.options
	t.degree = rows.Degree
	t.steps = slices.Clone(rows.Steps)
	if b.bundle.Meta != nil && len(t.steps) > 0 {
		t.captureSizes = make(map[StepMode][]int)
		for _, mode := range perfio.StepModes() {
			t.captureSizes[StepMode(mode)] = b.bundle.Meta.CaptureSizes(t.degree, mode)
		}
	}
	if t.degree < 1 {
		b.jobs = append(b.jobs, &fileBuild{name: "bundle", err: fmt.Errorf("tp: found %d, expected 1 or more", t.degree)})
	}
	b.job(wait, "attention.csv", func(f *fileBuild) (err error) {
		if len(rows.Attention) == 0 {
			return nil
		}
		if t.grid, err = newGrid(rows.Attention, o, f.warn); err != nil {
			return err
		}
		t.packed = newPacked(t.grid)
		return nil
	})
	b.job(wait, "skew_fit.csv", func(f *fileBuild) (err error) {
		t.alpha, err = newAlphaTable(b.bundle.Meta, rows, o, f.warn)
		return err
	})
	b.job(wait, "dense.csv", func(f *fileBuild) (err error) {
		t.dense, err = newCurves(rows.Dense, "tokens", func(r *perfio.DenseRow) (string, int, float64) {
			return r.Layer, r.Tokens, r.TimeUS
		}, o, f.warn)
		return err
	})
	b.job(wait, "per_sequence.csv", func(f *fileBuild) (err error) {
		t.perSequence, err = newCurves(rows.PerSequence, "sequences", func(r *perfio.SequenceRow) (string, int, float64) {
			return r.Layer, r.Sequences, r.TimeUS
		}, o, f.warn)
		return err
	})
	b.job(wait, "collectives.csv", func(f *fileBuild) (err error) {
		t.collectives, err = newCurves(collectiveSums(rows.Collectives), "tokens", func(r *perfio.DenseRow) (string, int, float64) {
			return r.Layer, r.Tokens, r.TimeUS
		}, o, f.warn)
		if o.Rules == Accurate {
			for _, c := range t.collectives {
				c.knowErrors()
			}
		}
		return err
	})
	b.job(wait, "moe.csv", func(f *fileBuild) (err error) {
		if len(rows.MoE) > 0 {
			t.moe, err = newMoETable(rows.MoE, o, f.warn)
		}
		return err
	})
}

// finish puts together what the goroutines built apart.
func (b *tpBuild) finish() {
	if t := b.table; t.grid != nil {
		t.attention = &parityAttention{packed: t.packed, grid: t.grid, alpha: t.alpha}
	}
}

func (b *tpBuild) errs() (errs []error) {
	for _, f := range b.jobs {
		if f.err != nil {
			errs = append(errs, fmt.Errorf("tp%d: %s: %w", b.rows.Degree, f.name, f.err))
		}
	}
	return errs
}

func (b *tpBuild) warnings() (warnings []string) {
	for _, f := range b.jobs {
		for _, w := range f.warns {
			warnings = append(warnings, fmt.Sprintf("tp%d: %s: %s", b.rows.Degree, f.name, w))
		}
	}
	return warnings
}

// newCurves builds a curve for each layer of a file.
func newCurves[R any](rows []R, field string, split func(*R) (layer string, key int, timeUS float64), o *Options, warn func(string, ...any)) (map[string]*curve, error) {
	points := map[string][]point{}
	var layers []string
	for i := range rows {
		layer, key, timeUS := split(&rows[i])
		if err := checkKey(field, key, 0); err != nil {
			return nil, fmt.Errorf("row %d: %w", i+1, err)
		}
		ns, err := latencyNS(timeUS)
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", i+1, err)
		}
		of, seen := points[layer]
		if !seen {
			layers = append(layers, layer)
		}
		points[layer] = append(of, point{key, ns, i})
	}
	curves, indexes := make(map[string]*curve, len(layers)), &indexCache{}
	for _, layer := range layers {
		c, err := newCurve(points[layer], field, o, indexes, func(format string, a ...any) {
			warn(layer+": "+format, a...)
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", layer, err)
		}
		curves[layer] = c
	}
	return curves, nil
}

func checkKey(field string, v, least int) error {
	if v < least || v > maxKey {
		return fmt.Errorf("%s: found %d, expected an integer from %d to %d", field, v, least, maxKey)
	}
	return nil
}
