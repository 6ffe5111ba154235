// Package sweep compares the two files of a bundle that hold attention times:
// older skew.csv files hold the sum of three timed runs, attention.csv their
// mean, and the two may come from sweeps of a device in different states.
package sweep

import (
	"math"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// Ratios are the medians of t_max of skew.csv over the time that
// attention.csv holds for the same shape: 1 where both hold means of the same
// sweep, about 3 where skew.csv holds sums of three runs.
type Ratios struct {
	Mixed  float64 `json:"mixed"`
	Pure   float64 `json:"pure"`
	Shared int     `json:"shared"` // shapes that both files hold
	// Factor is the whole number next to both: runs that skew.csv sums up.
	Factor int `json:"factor"`
}

// Compare finds the ratios. A regime without shared shapes takes the other's;
// with none at all both are 1.
func Compare(attention []perfio.AttentionRow, skew []perfio.SkewRow) Ratios {
	type shape struct{ pc, kp, n, kd int }
	wanted := make(map[shape]float64, len(skew))
	for _, r := range skew {
		wanted[shape{r.PC, r.KP, r.N, r.KVBig}] = 0
	}
	if len(wanted) > 0 {
		for _, r := range attention {
			k := shape{r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode}
			if _, ok := wanted[k]; ok {
				wanted[k] = r.TimeUS
			}
		}
	}
	var pure, mixed []float64
	for _, r := range skew {
		t := wanted[shape{r.PC, r.KP, r.N, r.KVBig}]
		switch {
		case !(t > 0):
		case r.PC == 0:
			pure = append(pure, r.TMaxUS/t)
		default:
			mixed = append(mixed, r.TMaxUS/t)
		}
	}
	s := Ratios{Mixed: 1, Pure: 1, Shared: len(pure) + len(mixed)}
	switch {
	case len(pure) > 0 && len(mixed) > 0:
		s.Pure, s.Mixed = median(pure), median(mixed)
	case len(pure) > 0:
		s.Pure = median(pure)
		s.Mixed = s.Pure
	case len(mixed) > 0:
		s.Mixed = median(mixed)
		s.Pure = s.Mixed
	}
	s.Factor = max(1, int(math.Round((s.Mixed+s.Pure)/2)))
	return s
}

// Divide returns the rows with their times in the unit of attention.csv.
func (s Ratios) Divide(skew []perfio.SkewRow) []perfio.SkewRow {
	out := make([]perfio.SkewRow, len(skew))
	for i, r := range skew {
		by := s.Mixed
		if r.PC == 0 {
			by = s.Pure
		}
		r.TMeanUS /= by
		r.TMaxUS /= by
		r.TSkewUS /= by
		out[i] = r
	}
	return out
}

func median(v []float64) float64 {
	slices.Sort(v)
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}
