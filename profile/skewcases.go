package profile

import (
	"math"
	"slices"
)

var (
	skewRatios  = []float64{1. / 16, 1. / 8, 1. / 4, 1. / 2, 3. / 4, 0.9}
	skewFactors = []float64{1.5, 2, 4, 8, 16}
)

// representativeSkew is kv_big/kvs of the first tier.
const representativeSkew = 4

// key identifies a case; cases of equal keys are kept once.
type skewKey struct {
	n, nb, pc, kp, kvs int
	skew               float64
}

// skewCases lists the feasible cases in plan order: the first tier by n, ratio,
// pc, kp and kvs, then the pivots of the second.
func skewCases(limits Limits, opts PlanOptions) []SkewCase {
	ns := doublingGrid(2, limits.MaxNumSeqs, opts.SkewNFactor)
	pcs := append([]int{0}, doublingGrid(16, limits.MaxNumBatchedTokens, opts.SkewPCFactor)...)
	kps := append([]int{0}, doublingGrid(512, max(512, opts.MaxKV/2), opts.SkewKPFactor)...)
	kvss := doublingGrid(128, max(512, opts.MaxKV), opts.SkewKVSFactor)

	var cases []SkewCase
	seen := make(map[skewKey]bool)
	add := func(n int, ratio, skew float64, pc, kp, kvs int) {
		c := newSkewCase(n, ratio, skew, pc, kp, kvs)
		key := skewKey{c.N, c.NB, c.PC, c.KP, c.KVS, c.Skew}
		if n < 2 || seen[key] || !limits.feasibleSkew(c, opts.MaxKV) {
			return
		}
		seen[key] = true
		cases = append(cases, c)
	}
	for _, n := range ns {
		for _, ratio := range ratiosFor(n) {
			for _, pc := range pcs {
				for _, kp := range kps {
					if pc == 0 && kp > 0 {
						continue
					}
					for _, kvs := range kvss {
						add(n, ratio, representativeSkew, pc, kp, kvs)
					}
				}
			}
		}
	}
	if len(ns) < 3 {
		return cases
	}
	pivots := []struct {
		n     int
		ratio float64
		pc    int
		skews []float64
	}{
		{ns[1], 1. / 8, pcs[1], skewFactors},
		{ns[2], 1. / 8, pcs[1], skewFactors},
		{ns[1], 1. / 2, pcs[1], skewFactors[:3]},
		{ns[1], 1. / 8, 0, skewFactors[1:]},
	}
	for _, p := range pivots {
		for _, skew := range p.skews {
			add(p.n, p.ratio, skew, p.pc, 0, kvss[0])
		}
	}
	return cases
}

// ratiosFor lists the shares of long decodes for n decodes, ascending.
func ratiosFor(n int) []float64 {
	ratios := slices.Clone(skewRatios)
	for b := 1; b <= 4 && b < n; b++ {
		ratios = append(ratios, float64(b)/float64(n))
	}
	slices.Sort(ratios)
	return slices.Compact(ratios)
}

// newSkewCase works out what follows from a case's coordinates; n is at least 1.
// The case's Ratio is the one that nb long decodes make, as skew.csv has it.
func newSkewCase(n int, ratio, skew float64, pc, kp, kvs int) SkewCase {
	nb := min(max(int(math.RoundToEven(ratio*float64(n))), 1), n-1)
	kvBig := int(math.RoundToEven(float64(kvs) * skew))
	return SkewCase{
		N: n, NB: nb, Ratio: float64(nb) / float64(max(n, 1)), Skew: skew, PC: pc, KP: kp, KVS: kvs,
		KVBig: kvBig, KVMean: (nb*kvBig + (n-nb)*kvs) / max(n, 1),
	}
}

// Shots are the case's three batches: all decodes at the mean length, all at
// the long one, and NB long ones followed by the short ones. The prefill chunk
// stands where the order wants it.
func (c *SkewCase) Shots(order Order) [3]Shot {
	batch := func(role SkewRole, decodes ...Group) Shot {
		return Shot{Category: Skew, Groups: ordered(order, c.PC, c.KP, decodes...), Case: c, Role: role}
	}
	return [3]Shot{
		batch(RoleMean, Group{c.N, 1, c.KVMean}),
		batch(RoleMax, Group{c.N, 1, c.KVBig}),
		batch(RoleSkew, Group{c.NB, 1, c.KVBig}, Group{c.N - c.NB, 1, c.KVS}),
	}
}

// ordered is a batch of decodes and, if pc > 0, one prefill chunk.
func ordered(order Order, pc, kp int, decodes ...Group) []Group {
	groups := make([]Group, 0, len(decodes)+1)
	if pc > 0 && order == PrefillFirst {
		groups = append(groups, Group{1, pc, kp})
	}
	groups = append(groups, decodes...)
	if pc > 0 && order != PrefillFirst {
		groups = append(groups, Group{1, pc, kp})
	}
	return groups
}
