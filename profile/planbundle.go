package profile

import (
	"fmt"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// NewPlanFromBundle plans the rows that a bundle has, in place of grids: every
// point of its tables, and its skew cases in the order of its file. Options
// that shape grids do not apply; TPs nil means the bundle's own. arch, which may
// be nil, says which layers are tp_stable: their rows are planned at the lowest
// planned degree only.
func NewPlanFromBundle(bundle *perfio.Bundle, limits Limits, arch *perfio.Architecture, opts PlanOptions) (*Plan, error) {
	if len(opts.TPs) == 0 {
		for _, tp := range bundle.TPs {
			opts.TPs = append(opts.TPs, tp.Degree)
		}
	}
	opts, err := opts.filled()
	if err != nil {
		return nil, err
	}
	plan := &Plan{Options: opts, Limits: limits}
	for _, degree := range opts.TPs {
		i := slices.IndexFunc(bundle.TPs, func(tp perfio.TP) bool { return tp.Degree == degree })
		if i < 0 {
			return nil, fmt.Errorf("%s: has no tp%d", bundle.Dir, degree)
		}
		p := planner{tp: degree, limits: limits, arch: arch, opts: opts}
		plan.TPs = append(plan.TPs, p.fromRows(&bundle.TPs[i]))
	}
	return plan, nil
}

func (p planner) fromRows(tp *perfio.TP) TPPlan {
	tpPlan := TPPlan{TP: tp.Degree}
	add := func(c CategoryPlan) {
		if len(c.Shots) > 0 && p.opts.wants(c.Category) {
			tpPlan.Categories = append(tpPlan.Categories, c)
		}
	}

	dense := make(map[int][]string)
	for _, row := range tp.Dense {
		dense[row.Tokens] = append(dense[row.Tokens], row.Layer)
	}
	add(p.byCount(Dense, dense, denseShot))
	sequences := make(map[int][]string)
	for _, row := range tp.PerSequence {
		sequences[row.Sequences] = append(sequences[row.Sequences], row.Layer)
	}
	add(p.byCount(PerSequence, sequences, sequenceShot))

	points := make([]AttentionPoint, 0, len(tp.Attention))
	for _, row := range tp.Attention {
		points = append(points, AttentionPoint{row.PrefillChunk, row.KVPrefill, row.NDecode, row.KVDecode})
	}
	attention := CategoryPlan{Category: Attention, Layers: p.categoryLayers(Attention)}
	for _, point := range sortedPoints(points) {
		attention.Shots = append(attention.Shots, attentionShot(point, p.opts.Order))
	}
	add(attention)

	if tp.Degree == 1 || p.opts.RealTP {
		moe := CategoryPlan{Category: MoE, Layers: p.categoryLayers(MoE)}
		for _, row := range tp.MoE {
			moe.Shots = append(moe.Shots, moeShot(row.Tokens, row.ActivatedExperts))
		}
		slices.SortFunc(moe.Shots, func(a, b Shot) int {
			return slices.Compare([]int{a.Tokens(), a.Experts}, []int{b.Tokens(), b.Experts})
		})
		add(moe)
	}

	skew := CategoryPlan{Category: Skew, Layers: p.categoryLayers(Skew)}
	skew.setCases(casesOf(tp.Skew), p.opts.Order)
	add(skew)

	batches := CategoryPlan{Category: Batches}
	for _, row := range tp.Batches {
		batches.Shots = append(batches.Shots, Shot{Category: Batches, Groups: groupsOf(row.Requests)})
	}
	add(batches)
	return tpPlan
}

// byCount plans one shot for each count that any of the category's layers has a
// row for, measured for those layers.
func (p planner) byCount(category Category, layers map[int][]string, shot func(int) Shot) CategoryPlan {
	c := CategoryPlan{Category: category}
	counts := make([]int, 0, len(layers))
	for n := range layers {
		counts = append(counts, n)
	}
	slices.Sort(counts)
	for _, n := range counts {
		names := layers[n]
		if p.tp != p.opts.TPs[0] && !p.opts.RealTP {
			names = slices.DeleteFunc(names, p.stable)
		}
		slices.Sort(names)
		names = slices.Compact(names)
		if len(names) == 0 {
			continue
		}
		c.Shots = append(c.Shots, shot(n))
		c.ShotLayers = append(c.ShotLayers, names)
	}
	return c
}

func (p planner) stable(layer string) bool {
	return p.arch != nil && slices.ContainsFunc(p.arch.Catalog, func(e perfio.CatalogEntry) bool {
		return e.Layer == layer && e.TPStable
	})
}

// casesOf takes the cases from rows of skew.csv; of repeated ones the last.
func casesOf(rows []perfio.SkewRow) []SkewCase {
	last := make(map[skewKey]int, len(rows))
	for i, row := range rows {
		last[rowKey(row)] = i
	}
	cases := make([]SkewCase, 0, len(last))
	for i, row := range rows {
		if last[rowKey(row)] == i {
			cases = append(cases, SkewCase{
				N: row.N, NB: row.NB, Ratio: row.Ratio, Skew: row.Skew, PC: row.PC, KP: row.KP,
				KVS: row.KVS, KVBig: row.KVBig, KVMean: row.KVMean,
			})
		}
	}
	return cases
}

func rowKey(row perfio.SkewRow) skewKey {
	return skewKey{row.N, row.NB, row.PC, row.KP, row.KVS, row.Skew}
}

// groupsOf is the batch as groups of neighbours that are alike.
func groupsOf(requests []perfio.Request) []Group {
	groups := make([]Group, 0, len(requests))
	for _, r := range requests {
		groups = append(groups, Group{1, r.NewTokens, r.KVHistory})
	}
	return mergeGroups(groups)
}
