package profile

import (
	"math"
	"math/rand/v2"

	"github.com/layerprof/layerprof/perfio"
)

// batchKinds are drawn in turn, so that any number of batches holds them in
// these proportions: what a serving engine runs and tables do not hold weighs
// most.
var batchKinds = []string{
	perfio.KindDecodeSkew, perfio.KindMulti, perfio.KindMixed, perfio.KindPrefill, perfio.KindMixedSkew,
	perfio.KindDecode, perfio.KindDecodeSkew, perfio.KindMulti, perfio.KindMixedSkew, perfio.KindMulti,
}

// randomBatches draws n batches. Equal seeds and limits give equal batches; the
// first n of a longer list are those of a shorter one.
func (p planner) randomBatches(category Category, n int) []Shot {
	stream := uint64(1)
	if category == Validation {
		stream = 2
	}
	shots := make([]Shot, 0, n)
	for i := range n {
		d := drawer{planner: p, Rand: rand.New(rand.NewPCG(uint64(p.opts.Seed), stream<<32|uint64(i)))}
		// A drawing can miss its kind or the engine's limits; under tiny limits
		// a kind may not exist at all, and the slot stays empty.
		for range 200 {
			kind := batchKinds[i%len(batchKinds)]
			shot := Shot{Category: category, Groups: d.draw(kind)}
			if perfio.KindOf(shot.Requests()) == kind && p.limits.Infeasible(shot.Groups) == "" {
				shots = append(shots, shot)
				break
			}
		}
	}
	return shots
}

// drawer draws one batch.
type drawer struct {
	planner
	*rand.Rand
}

func (d drawer) draw(kind string) []Group {
	var decodes, prefills []Group
	switch kind {
	case perfio.KindDecode, perfio.KindMixed:
		decodes = d.decodes(false)
	case perfio.KindDecodeSkew, perfio.KindMixedSkew:
		decodes = d.decodes(true)
	case perfio.KindMulti:
		if d.Float64() < 0.8 {
			decodes = d.decodes(d.Float64() < 0.7)
		}
	}
	switch kind {
	case perfio.KindPrefill, perfio.KindMixed, perfio.KindMixedSkew:
		prefills = d.prefills(1)
	case perfio.KindMulti:
		prefills = d.prefills(2 + d.IntN(3))
	}
	if d.opts.Order == PrefillFirst {
		return mergeGroups(append(prefills, decodes...))
	}
	return mergeGroups(append(decodes, prefills...))
}

// decodes draws running requests: lengths within 20% of each other, or
// log-normal about a common median as after a while of serving.
func (d drawer) decodes(skewed bool) []Group {
	longest := d.longest()
	n := d.logUniform(1, d.limits.MaxNumSeqs)
	if skewed {
		n = d.logUniform(2, d.limits.MaxNumSeqs)
	}
	median := float64(d.logUniform(16, longest))
	sigma := 0.5 + d.Float64()
	groups := make([]Group, n)
	for i := range groups {
		factor := 0.8 + 0.4*d.Float64()
		if skewed {
			factor = math.Exp(sigma * d.NormFloat64())
		}
		groups[i] = Group{1, 1, min(max(int(median*factor), 1), longest)}
	}
	return groups
}

// prefills draws count chunks that fit the token budget together, half of them
// a request's first.
func (d drawer) prefills(count int) []Group {
	groups := make([]Group, count)
	for i := range groups {
		history := 0
		if d.Float64() < 0.5 {
			history = d.logUniform(16, d.longest())
		}
		groups[i] = Group{1, d.logUniform(16, d.limits.MaxNumBatchedTokens/count), history}
	}
	return groups
}

// longest is the longest history that is drawn.
func (d drawer) longest() int {
	return max(min(d.opts.MaxKV, limitOr(d.limits.MaxModelLen)-2), 1)
}

// logUniform draws from [from, to], each doubling as likely as the next.
func (d drawer) logUniform(from, to int) int {
	if to <= from {
		return max(to, 1)
	}
	low, high := math.Log(float64(from)), math.Log(float64(to)+1)
	return min(int(math.Exp(low+d.Float64()*(high-low))), to)
}

// mergeGroups joins neighbours that are alike.
func mergeGroups(groups []Group) []Group {
	merged := groups[:0]
	for _, g := range groups {
		last := len(merged) - 1
		if last >= 0 && merged[last].NewTokens == g.NewTokens && merged[last].KVHistory == g.KVHistory {
			merged[last].Count += g.Count
			continue
		}
		merged = append(merged, g)
	}
	return merged
}
