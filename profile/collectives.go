package profile

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// collectiveRecords are a result's collectives as the journal has them.
func collectiveRecords(res Result) []collectiveRecord {
	var out []collectiveRecord
	for _, c := range res.Collectives {
		out = append(out, collectiveRecord{
			Layer: c.Layer, Kind: c.Kind, Rows: c.Rows, Bytes: c.Bytes, Ranks: c.Ranks, Calls: c.Calls, US: c.SamplesUS, WaitUS: c.WaitUS, By: c.By,
		})
	}
	return out
}

// checkTPMode keeps real and emulated degrees out of one bundle: its meta.yaml
// says one of the two of all.
func (r *runner) checkTPMode() error {
	meta, err := r.metaOnDisk()
	if meta == nil || err != nil {
		return err
	}
	if was, is := meta.TPMode(), string(cmp.Or(r.Spec.TPMode, EmulatedTP)); was != is {
		return fmt.Errorf("%s: tp_mode: found %s, expected %s: real and emulated degrees stand in bundles of their own (another --variant)",
			filepath.Join(r.Dir, perfio.MetaFile), was, is)
	}
	return nil
}

// collectives makes the rows of collectives.csv: those of a layer whose work
// goes by tokens from the dense shots, those of one whose work goes by sequences
// from the per_sequence shots, as the layers' own rows are made. The anchors'
// factors are left alone: what they tell is how fast the devices compute.
func (v *deriver) collectives(plan *TPPlan) {
	category := make(map[string]Category)
	for _, e := range v.arch.Catalog {
		category[e.Layer] = Category(e.Category)
		if category[e.Layer] == MoE {
			category[e.Layer] = Dense // every dense shot passes the experts, too
		}
	}
	type key struct {
		layer, kind string
		bytes       int
	}
	type value struct {
		ranks, calls int
		us, wait     []float64
	}
	for i := range plan.Categories {
		c := &plan.Categories[i]
		if c.Category != Dense && c.Category != PerSequence {
			continue
		}
		for i := range c.Shots {
			shot := &c.Shots[i]
			found := make(map[key]*value)
			v.index.each(v.envs, v.tp, shotScope(shot), shot.Shape(), v.share, func(s stored) {
				for _, one := range s.Collectives {
					if category[one.Layer] != c.Category {
						continue
					}
					k := key{one.Layer, one.Kind, one.Bytes}
					if found[k] == nil {
						found[k] = &value{ranks: one.Ranks, calls: one.Calls}
					}
					found[k].us = append(found[k].us, one.US...)
					found[k].wait = append(found[k].wait, one.WaitUS...)
				}
			})
			count := shot.Tokens()
			if c.Category == PerSequence {
				count = shot.Sequences()
			}
			for k, one := range found {
				v.tables.Collectives = append(v.tables.Collectives, perfio.CollectiveRow{
					Layer: k.layer, Collective: k.kind, Tokens: count, Ranks: one.ranks, Bytes: k.bytes, Calls: one.calls,
					TimeUS: median(one.us), WaitUS: median(one.wait),
				})
			}
		}
	}
}

// collectiveKernels says which kernels ran which collectives, and for which
// sizes: the least and the most bytes that a rank gave. Empty where no kernel is
// known, as on a CPU.
func collectiveKernels(x *journalIndex, d *degree) map[string]any {
	sizes := make(map[string][]int)
	for key, list := range x.shots {
		if key.tp != d.tp || !slices.Contains(d.envs, key.env) {
			continue
		}
		for _, s := range list {
			for _, c := range s.Collectives {
				if c.By == "" {
					continue
				}
				name := c.Kind + " by " + c.By
				if had := sizes[name]; had != nil {
					sizes[name] = []int{min(had[0], c.Bytes), max(had[1], c.Bytes)}
				} else {
					sizes[name] = []int{c.Bytes, c.Bytes}
				}
			}
		}
	}
	out := make(map[string]any, len(sizes))
	for name, bytes := range sizes {
		out[name] = bytes
	}
	return out
}

// collectivesByLayer is what follows one call of each layer in a batch: all kinds
// of collectives, each as often as it is called.
func collectivesByLayer(records []stored) map[string]float64 {
	type key struct {
		layer, kind string
		bytes       int
	}
	samples, calls := make(map[key][]float64), make(map[key]int)
	for _, s := range records {
		for _, c := range s.Collectives {
			if c.Layer != "" {
				k := key{c.Layer, c.Kind, c.Bytes}
				samples[k], calls[k] = append(samples[k], c.US...), c.Calls
			}
		}
	}
	if len(samples) == 0 {
		return nil
	}
	sums := make(map[string]float64)
	for k, us := range samples {
		sums[k.layer] += float64(calls[k]) * median(us)
	}
	for layer, us := range sums {
		sums[layer] = shortUS(us)
	}
	return sums
}

// rankRatios says how unlike the ranks of a degree's engines are: for each, how
// long its layers took by the fastest rank's of the same shot, the geometric mean
// over all of them. nil where no engine had several ranks.
func rankRatios(x *journalIndex, d *degree) []float64 {
	var sums []float64
	n := 0
	for key, list := range x.shots {
		if key.tp != d.tp || !slices.Contains(d.envs, key.env) {
			continue
		}
		for _, s := range list {
			for _, l := range s.Layers {
				if len(l.RanksUS) != d.tp || d.tp < 2 {
					continue
				}
				if sums == nil {
					sums = make([]float64, d.tp)
				}
				fastest := slices.Min(l.RanksUS)
				for i, us := range l.RanksUS {
					sums[i] += math.Log(us / fastest)
				}
				n++
			}
		}
	}
	for i := range sums {
		sums[i] = perfio.RoundDecimals(math.Exp(sums[i]/float64(n)), 4)
	}
	return sums
}
