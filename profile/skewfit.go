package profile

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/layerprof/layerprof/perfio"
)

// SkewFit is what skew_fit.csv and meta.yaml's skew_fit block say of one tp.
type SkewFit struct {
	Axes SkewAxes
	Rows []perfio.SkewFitRow // in the order of skew_fit.csv
	// NSamples is the number of cases fitted: those that have an alpha.
	NSamples int
	// AlphaDefault is the fit over all of them; this and the errors below are
	// rounded to 4 decimals.
	AlphaDefault float64
	// RelErr are quantiles of |predicted/measured - 1| of t_skew, SignedMean
	// the mean of predicted/measured - 1.
	RelErrP50, RelErrP90, RelErrP99 float64
	SignedMean                      float64
}

// SkewAxes are the fit's bins: bin i holds what is above Bins[i] and not above
// Bins[i+1], and is called Labels[i]. len(Bins) == len(Labels)+1.
type SkewAxes struct {
	N, SkewRate, KVBig, KP SkewAxis
}

// SkewAxis is one axis.
type SkewAxis struct {
	Bins   []float64
	Labels []string
}

// Equal says whether two fits have the same axes.
func (a SkewAxes) Equal(b SkewAxes) bool {
	same := func(x, y SkewAxis) bool { return slices.Equal(x.Bins, y.Bins) && slices.Equal(x.Labels, y.Labels) }
	return same(a.N, b.N) && same(a.SkewRate, b.SkewRate) && same(a.KVBig, b.KVBig) && same(a.KP, b.KP)
}

const (
	overflowN  = 1_000_000
	overflowKV = 1_000_000_000
)

// ErrNoSkewSamples is FitSkew's error where no case has an alpha.
var ErrNoSkewSamples = errors.New("skew.csv: no case has an alpha, nothing to fit")

// FitSkew fits the skew cases of one tp: in each bucket the alpha that least
// squares give for t_skew = t_mean + alpha*(t_max - t_mean).
func FitSkew(rows []perfio.SkewRow) (*SkewFit, error) {
	axes := newSkewAxes(rows)
	type bucket struct {
		pc                int
		n, rate, kvb, kpp int
	}
	buckets := make(map[bucket]*leastSquares)
	var all leastSquares
	keys := make([]bucket, len(rows))
	for i, row := range rows {
		if !row.HasAlpha {
			continue
		}
		key := bucket{row.PC, axes.N.bin(float64(row.N)), axes.SkewRate.bin(min(max(skewRate(row), 0), 1)),
			axes.KVBig.bin(float64(row.KVBig)), axes.KP.bin(float64(row.KP))}
		keys[i] = key
		if buckets[key] == nil {
			buckets[key] = &leastSquares{}
		}
		buckets[key].add(row)
		all.add(row)
	}
	if all.n == 0 {
		return nil, ErrNoSkewSamples
	}
	fit := &SkewFit{Axes: axes, NSamples: all.n, AlphaDefault: round4(all.alpha())}
	for key, sums := range buckets {
		fit.Rows = append(fit.Rows, perfio.SkewFitRow{
			PC: key.pc, NLabel: axes.N.Labels[key.n], SkewRateLabel: axes.SkewRate.Labels[key.rate],
			KVBigLabel: axes.KVBig.Labels[key.kvb], KPLabel: axes.KP.Labels[key.kpp],
			Alpha: round4(sums.alpha()), NSamples: sums.n,
		})
	}
	slices.SortFunc(fit.Rows, func(a, b perfio.SkewFitRow) int {
		return cmp.Or(cmp.Compare(a.PC, b.PC), cmp.Compare(a.NLabel, b.NLabel),
			cmp.Compare(a.SkewRateLabel, b.SkewRateLabel), cmp.Compare(a.KVBigLabel, b.KVBigLabel),
			cmp.Compare(a.KPLabel, b.KPLabel))
	})
	errs := make([]float64, 0, all.n)
	sum := 0.0
	for i, row := range rows {
		if !row.HasAlpha {
			continue
		}
		predicted := row.TMeanUS + round4(buckets[keys[i]].alpha())*(row.TMaxUS-row.TMeanUS)
		e := (predicted - row.TSkewUS) / row.TSkewUS
		if math.IsNaN(e) || math.IsInf(e, 0) {
			return nil, fmt.Errorf("skew.csv: row %d: t_skew_us %v cannot be compared", i+1, row.TSkewUS)
		}
		sum += e
		errs = append(errs, math.Abs(e))
	}
	slices.Sort(errs)
	fit.RelErrP50, fit.RelErrP90, fit.RelErrP99 = round4(quantile(errs, 0.5)), round4(quantile(errs, 0.9)), round4(quantile(errs, 0.99))
	fit.SignedMean = round4(sum / float64(len(errs)))
	return fit, nil
}

// leastSquares sums what alpha needs.
type leastSquares struct {
	n        int
	num, den float64
}

func (s *leastSquares) add(row perfio.SkewRow) {
	dm, ds := row.TMaxUS-row.TMeanUS, row.TSkewUS-row.TMeanUS
	s.num += dm * ds
	s.den += dm * dm
	s.n++
}

func (s *leastSquares) alpha() float64 {
	if s.den == 0 {
		return 0
	}
	return s.num / s.den
}

func skewRate(row perfio.SkewRow) float64 {
	return float64(row.KVMean-row.KVS) / float64(max(1, row.KVBig-row.KVS))
}

// newSkewAxes takes the bins from the cases that were measured, fitted or not.
func newSkewAxes(rows []perfio.SkewRow) SkewAxes {
	var ns, kps []int
	largest := 0
	for _, row := range rows {
		ns = append(ns, row.N)
		largest = max(largest, row.KVBig)
		if row.KP > 0 {
			kps = append(kps, row.KP)
		}
	}
	var edges []int
	for edge := 1024; edge <= largest; edge *= 4 {
		edges = append(edges, edge)
	}
	if len(edges) == 0 || largest > edges[len(edges)-1] {
		edges = append(edges, largest)
	}
	kp := newSkewAxis("kp", distinct(kps), overflowKV)
	return SkewAxes{
		N: newSkewAxis("n", distinct(ns), overflowN),
		SkewRate: SkewAxis{
			Bins:   []float64{-0.01, 0.05, 0.15, 0.40, 0.70, 1.01},
			Labels: []string{"sr<=5%", "sr<=15%", "sr<=40%", "sr<=70%", "sr>70%"},
		},
		KVBig: newSkewAxis("kvB", edges, overflowKV),
		KP: SkewAxis{
			Bins:   append([]float64{-1}, kp.Bins...),
			Labels: append([]string{"kp=0"}, kp.Labels...),
		},
	}
}

// newSkewAxis has a bin up to each edge and one for what is above the last.
func newSkewAxis(name string, edges []int, overflow float64) SkewAxis {
	axis := SkewAxis{Bins: []float64{0}}
	last := 0
	for _, edge := range edges {
		axis.Bins = append(axis.Bins, float64(edge))
		axis.Labels = append(axis.Labels, name+"<="+shortNumber(edge))
		last = edge
	}
	axis.Bins = append(axis.Bins, overflow)
	axis.Labels = append(axis.Labels, name+">"+shortNumber(last))
	return axis
}

// bin is the first bin that reaches up to v, else the last.
func (a SkewAxis) bin(v float64) int {
	for i := range a.Labels {
		if v <= a.Bins[i+1] {
			return i
		}
	}
	return len(a.Labels) - 1
}

func shortNumber(n int) string {
	if n > 0 && n%1024 == 0 {
		return strconv.Itoa(n/1024) + "k"
	}
	return strconv.Itoa(n)
}

func distinct(values []int) []int {
	slices.Sort(values)
	return slices.Compact(values)
}

// quantile interpolates linearly in sorted values, which are not empty.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := min(int(at), len(sorted)-2)
	if i < 0 {
		return sorted[0]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// round4 rounds to 4 decimals as the decimal expansion of v says, which scaling
// by 10000 does not always.
func round4(v float64) float64 {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'f', 4, 64), 64)
	if err != nil {
		return v // not a number or infinite: FormatFloat's text always parses
	}
	return rounded
}
