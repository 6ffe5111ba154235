package accuracy

import (
	"github.com/layerprof/layerprof/internal/sweep"
	"github.com/layerprof/layerprof/perfio"
)

// Normalize returns the data with the times of skew.csv divided by the ratio
// of its sweep to that of attention.csv, and the ratios. Where they are not
// known the data is without skew.csv.
func Normalize(meta *perfio.Meta, d Data) (Data, sweep.Ratios) {
	s := sweep.Compare(meta, d.Attention, d.Skew)
	return Data{Attention: d.Attention, Skew: s.Divide(d.Skew)}, s
}
