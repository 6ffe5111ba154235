package accuracy

import (
	"math"

	"github.com/layerprof/layerprof/perfio"
)

// SweepRatios are the medians of t_max of skew.csv over the time that
// attention.csv holds for the same shape: 1 where both hold means of the same
// sweep, about 3 where skew.csv holds sums of three runs.
type SweepRatios struct {
	Mixed  float64 `json:"mixed"`
	Pure   float64 `json:"pure"`
	Shared int     `json:"shared"` // shapes that both files hold
	// Factor is the whole number next to both: runs that skew.csv sums up.
	Factor int `json:"factor"`
}

// Normalize returns the data with the times of skew.csv divided by the ratio
// of its regime, and the ratios. A regime without shared shapes takes the
// other's; with none at all, nothing is divided.
func Normalize(d Data) (Data, SweepRatios) {
	type shape struct{ pc, kp, n, kd int }
	at := make(map[shape]float64, len(d.Attention))
	for _, r := range d.Attention {
		at[shape{r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode}] = r.TimeUS
	}
	var pure, mixed []float64
	for _, r := range d.Skew {
		t, ok := at[shape{r.PC, r.KP, r.N, r.KVBig}]
		if !ok || !(t > 0) {
			continue
		}
		if r.PC == 0 {
			pure = append(pure, r.TMaxUS/t)
		} else {
			mixed = append(mixed, r.TMaxUS/t)
		}
	}
	s := SweepRatios{Mixed: 1, Pure: 1, Shared: len(pure) + len(mixed)}
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
	out := Data{Attention: d.Attention, Skew: make([]perfio.SkewRow, len(d.Skew))}
	for i, r := range d.Skew {
		by := s.Mixed
		if r.PC == 0 {
			by = s.Pure
		}
		r.TMeanUS /= by
		r.TMaxUS /= by
		r.TSkewUS /= by
		out.Skew[i] = r
	}
	return out, s
}
