// Package sweep compares the two files of a bundle that hold attention times:
// older skew.csv files hold the sum of three timed runs, attention.csv their
// mean, and the two may come from sweeps of a device in different states.
package sweep

import (
	"fmt"
	"math"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// Ratios are the medians of t_max of skew.csv over the time that
// attention.csv holds for the same shape: 1 where both hold means of the same
// sweep, about 3 where skew.csv holds sums of three runs. Where the files share
// no shape both are Factor, and 0 where that is not known.
type Ratios struct {
	Mixed  float64 `json:"mixed"`
	Pure   float64 `json:"pure"`
	Shared int     `json:"shared"` // shapes that both files hold
	// Factor is the whole number next to both: runs that skew.csv sums up; 0:
	// not known.
	Factor int `json:"factor"`
	// From says what Factor was found from; "" where it is not known.
	From string `json:"from,omitempty"`
	// Unknown says why Factor is not known.
	Unknown string `json:"unknown,omitempty"`
}

// What a factor was found from.
const (
	FromShared  = "shared shapes"
	FromMeta    = "meta.yaml"
	FromNearby  = "nearby shapes of attention.csv"
	nearbyTries = 200 // skew rows that are asked, evenly chosen
	nearbyLeast = 20  // of them that must have close neighbours
	nearbyClose = 1.5 // time of the neighbour above over that of the one below
	nearbyOff   = 0.2 // of the median from a whole number
)

// Known says whether the times of skew.csv can be compared with attention.csv.
func (s Ratios) Known() bool { return s.Factor > 0 }

// String says what was found, in a line.
func (s Ratios) String() string {
	switch {
	case !s.Known():
		return fmt.Sprintf("skew.csv and attention.csv share no shape, and how many runs a time of skew.csv sums up is not known: %s", s.Unknown)
	case s.Shared == 0:
		return fmt.Sprintf("skew.csv and attention.csv share no shape: sums of %d by %s", s.Factor, s.From)
	}
	return fmt.Sprintf("skew.csv takes %.3f (mixed) and %.3f (pure) times as long as attention.csv at %d shared shapes: sums of %d", s.Mixed, s.Pure, s.Shared, s.Factor)
}

// Compare finds the ratios from the shapes that both files hold. A regime
// without shared shapes takes the other's. With none at all the factor is what
// meta.yaml (nil: none) and the neighbours of the skew sweep's shapes in
// attention.csv say; it is not known where they contradict each other or say
// nothing.
func Compare(meta *perfio.Meta, attention []perfio.AttentionRow, skew []perfio.SkewRow) Ratios {
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
	s := Ratios{Shared: len(pure) + len(mixed), From: FromShared}
	switch {
	case len(pure) > 0 && len(mixed) > 0:
		s.Pure, s.Mixed = median(pure), median(mixed)
	case len(pure) > 0:
		s.Pure = median(pure)
		s.Mixed = s.Pure
	case len(mixed) > 0:
		s.Mixed = median(mixed)
		s.Pure = s.Mixed
	default:
		return unshared(meta, attention, skew)
	}
	s.Factor = max(1, int(math.Round((s.Mixed+s.Pure)/2)))
	return s
}

// unshared finds the factor without a shape that both files hold.
func unshared(meta *perfio.Meta, attention []perfio.AttentionRow, skew []perfio.SkewRow) Ratios {
	said, found := recorded(meta), nearby(attention, skew)
	s := Ratios{Factor: said, From: FromMeta}
	switch {
	case said > 0 && found > 0 && said != found:
		return Ratios{Unknown: fmt.Sprintf("meta.yaml says %d, %s say %d", said, FromNearby, found)}
	case said == 0 && found == 0:
		return Ratios{Unknown: "meta.yaml does not say, and " + FromNearby + " are too few or agree on no number"}
	case said == 0:
		s = Ratios{Factor: found, From: FromNearby}
	}
	s.Mixed, s.Pure = float64(s.Factor), float64(s.Factor)
	return s
}

// recorded is the factor that meta.yaml says; 0 where it says none.
func recorded(m *perfio.Meta) int {
	if m == nil || m.Root == nil {
		return 0
	}
	return m.SkewRuns()
}

// nearby estimates the factor from batches of attention.csv that are smaller
// and larger than a skew row's t_max batch in every coordinate and take nearly
// the same time; 0 where too few rows have such, or they agree on no number.
func nearby(attention []perfio.AttentionRow, skew []perfio.SkewRow) int {
	var ratios []float64
	for i, step := 0, max(1, len(skew)/nearbyTries); i < len(skew); i += step {
		r := &skew[i]
		low, high := 0.0, math.Inf(1)
		for j := range attention {
			a := &attention[j]
			if (a.PrefillChunk > 0) != (r.PC > 0) {
				continue // another kernel, perhaps
			}
			if a.PrefillChunk <= r.PC && a.KVPrefill <= r.KP && a.NDecode <= r.N && a.KVDecode <= r.KVBig {
				low = max(low, a.TimeUS)
			}
			if a.PrefillChunk >= r.PC && a.KVPrefill >= r.KP && a.NDecode >= r.N && a.KVDecode >= r.KVBig {
				high = min(high, a.TimeUS)
			}
		}
		if low > 0 && high > 0 && high < nearbyClose*low && low < nearbyClose*high {
			ratios = append(ratios, r.TMaxUS/math.Sqrt(low*high))
		}
	}
	if len(ratios) < nearbyLeast {
		return 0
	}
	m := median(ratios)
	factor := math.Round(m)
	if factor < 1 || math.Abs(m/factor-1) > nearbyOff {
		return 0
	}
	return int(factor)
}

// Divide returns the rows with their times in the unit of attention.csv; none
// where that is not known.
func (s Ratios) Divide(skew []perfio.SkewRow) []perfio.SkewRow {
	if !s.Known() {
		return nil
	}
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
