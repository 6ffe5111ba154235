package traceloader

import (
	"maps"
	"slices"
)

// Range is what was measured of one axis.
type Range struct {
	Min   int `json:"min"`
	Max   int `json:"max"`
	Count int `json:"count"` // distinct values
}

func rangeOf(sorted []int) Range {
	return Range{sorted[0], sorted[len(sorted)-1], len(sorted)}
}

// Coverage is what a table can answer without extrapolating, by tp.
type Coverage struct {
	TPs []TPCoverage `json:"tps"`
}

// TPCoverage is the coverage of one tp folder.
type TPCoverage struct {
	TP          int                `json:"tp"`
	Dense       []LayerCoverage    `json:"dense,omitempty"`
	PerSequence []LayerCoverage    `json:"per_sequence,omitempty"`
	Attention   *AttentionCoverage `json:"attention,omitempty"`
	MoE         *MoECoverage       `json:"moe,omitempty"`
	// SkewBuckets is the number of buckets that have an alpha of their own.
	SkewBuckets int `json:"skew_buckets"`
}

// LayerCoverage is one layer's range of tokens or sequences.
type LayerCoverage struct {
	Layer string `json:"layer"`
	Range
}

// AttentionCoverage is the range of each axis over the whole grid, which is
// ragged: Explain says what a single lookup finds.
type AttentionCoverage struct {
	PrefillChunk Range `json:"prefill_chunk"`
	KVPrefill    Range `json:"kv_prefill"`
	NDecode      Range `json:"n_decode"`
	KVDecode     Range `json:"kv_decode"`
	Points       int   `json:"points"`
	// Slices is the number of (prefill_chunk, n_decode) that were measured, of
	// PrefillChunk.Count x NDecode.Count; lookups borrow for the others.
	Slices int `json:"slices"`
}

// MoECoverage is the range of the sparse block's axes.
type MoECoverage struct {
	Tokens           Range `json:"tokens"`
	ActivatedExperts Range `json:"activated_experts"`
	Points           int   `json:"points"`
}

// Coverage returns what was measured, per axis. It is worked out anew at each
// call.
func (t *Table) Coverage() Coverage {
	var c Coverage
	for i := range t.tps {
		c.TPs = append(c.TPs, t.tps[i].coverage())
	}
	return c
}

func (t *tpTable) coverage() TPCoverage {
	c := TPCoverage{TP: t.degree, Dense: layerCoverage(t.dense), PerSequence: layerCoverage(t.perSequence)}
	if g := t.grid; g != nil {
		c.Attention = &AttentionCoverage{rangeOf(g.pcs), rangeOf(g.kps), rangeOf(g.nds), rangeOf(g.kds), g.points, len(g.slices)}
	}
	if m := t.moe; m != nil {
		var tokens []int
		for _, r := range m.rows {
			tokens = append(tokens, r.xs...)
		}
		points := len(tokens)
		slices.Sort(tokens)
		c.MoE = &MoECoverage{rangeOf(slices.Compact(tokens)), rangeOf(m.experts), points}
	}
	if t.alpha != nil {
		for _, found := range t.alpha.found {
			if found {
				c.SkewBuckets++
			}
		}
	}
	return c
}

func layerCoverage(curves map[string]*curve) (out []LayerCoverage) {
	for _, layer := range slices.Sorted(maps.Keys(curves)) {
		out = append(out, LayerCoverage{layer, rangeOf(curves[layer].measured())})
	}
	return out
}
