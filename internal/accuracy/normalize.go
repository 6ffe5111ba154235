package accuracy

import "github.com/layerprof/layerprof/internal/sweep"

// Normalize returns the data with the times of skew.csv divided by the ratio
// of its sweep to that of attention.csv, and the ratios.
func Normalize(d Data) (Data, sweep.Ratios) {
	s := sweep.Compare(d.Attention, d.Skew)
	return Data{Attention: d.Attention, Skew: s.Divide(d.Skew)}, s
}
