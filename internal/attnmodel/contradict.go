package attnmodel

import (
	"fmt"
	"math"
	"slices"
)

// Batches of decodes of unlike lengths are what the bases differ in most, and
// no grid point is one. Those of skew.csv do not choose between bases that all
// explain them: their order may be unknown. They rule out one that they
// contradict grossly, where another explains them.
const (
	skewAsked = 200 // samples of skew.csv that are predicted
	skewLeast = 20  // fewer say nothing
)

// Sums of the median and the 90th percentile, in percent, from which on a basis
// is contradicted. FlashAttention-3's has not seen the batches, in an order that
// is not known; those of the others stand among their nodes. Measured bundles
// show 6.5 and 4.5 at most.
func contradictedFrom(b Kernel) float64 {
	switch b {
	case KernelFA3:
		return 25
	case KernelFA2:
		return 10
	}
	return goodScore // no kernel's schedule: whichever explains most
}

func (s BasisScore) sum() float64 { return s.P50 + s.P90 }

// Contradicts says whether the batches contradict the basis.
func (s BasisScore) Contradicts() bool {
	return s.N >= skewLeast && s.sum() > contradictedFrom(s.Basis)
}

// Contradiction says in a line where skew.csv contradicts the kernel that was
// chosen on the grid, or the basis that is used; "" where neither.
func (c *Calibration) Contradiction() string {
	at := slices.IndexFunc(c.Skew, func(s BasisScore) bool { return s.Basis == c.Basis })
	if at < 0 {
		return ""
	}
	first, used := c.Skew[0], c.Skew[at]
	switch {
	case used.N >= skewLeast && used.sum() > contradictedFrom(KernelFA3):
		return fmt.Sprintf("skew.csv contradicts %s (off by %.1f%% at the median and %.1f%% at the 90th percentile) and nothing explains it: batches of unlike lengths are uncertain",
			used.Basis, used.P50, used.P90)
	case at > 0 && (first.Basis == KernelFA2 || first.Basis == KernelFA3):
		return fmt.Sprintf("skew.csv contradicts %s (off by %.1f%% at the median and %.1f%% at the 90th percentile): %s is used (%.1f%%, %.1f%%)",
			first.Basis, first.P50, first.P90, used.Basis, used.P50, used.P90)
	}
	return ""
}

// skewScore predicts some samples of skew.csv: without their own node where
// they are nodes, else in the better of the two orders of their decodes.
func (p *Predictor) skewScore(asked []int, samples []Sample) BasisScore {
	at := make(map[int32]int, len(asked))
	for k, i := range asked {
		at[int32(i)] = k
	}
	known := make([]float64, len(asked))
	for k := range known {
		known[k] = math.NaN()
	}
	for _, f := range p.fields {
		if f == nil {
			continue
		}
		for i := range f.nodes {
			if k, ok := at[f.nodes[i].sample]; ok {
				mean, _ := f.without(i)
				known[k] = math.Abs(mean - f.nodes[i].y)
			}
		}
	}
	best := BasisScore{Basis: p.calibration.Basis}
	for _, order := range []func([]Run) []Run{func(r []Run) []Run { return r }, shortFirst} {
		var errs []float64
		for k, i := range asked {
			e := known[k]
			if math.IsNaN(e) {
				e = math.Abs(math.Log(p.TimeUS(order(samples[i].Runs)) / samples[i].TimeUS))
			}
			if !math.IsInf(e, 0) { // no answer
				errs = append(errs, e)
			}
		}
		s := scoreOf(p.calibration.Basis, errs)
		if best.N == 0 || s.N > 0 && s.sum() < best.sum() {
			best = s
		}
	}
	return best
}

// shortFirst is a batch of skew.csv with its short decodes before the long ones.
func shortFirst(runs []Run) []Run {
	out := slices.Clone(runs)
	var at []int
	for i, r := range out {
		if r.New == 1 {
			at = append(at, i)
		}
	}
	if len(at) == 2 {
		out[at[0]], out[at[1]] = out[at[1]], out[at[0]]
	}
	return out
}

// candidate is a basis that was tried on the grid.
type candidate struct {
	predictor *Predictor
	grid      BasisScore
}

// uncontradicted is the best candidate, or where skew.csv contradicts it the
// one that explains grid and skew.csv best together, if it explains skew.csv
// twice as well; more makes bases that were not tried on the grid.
func uncontradicted(best candidate, tried []candidate, samples []Sample, more func(Kernel) candidate) candidate {
	var skew []int
	for i := range samples {
		if samples[i].Skew {
			skew = append(skew, i)
		}
	}
	if len(skew) < skewLeast {
		return best
	}
	asked := spread(skew, skewAsked)
	score := best.predictor.skewScore(asked, samples)
	scores := []BasisScore{score}
	if basis := best.predictor.Basis(); score.Contradicts() {
		for _, b := range []Kernel{Roofline, Padded} {
			if !slices.ContainsFunc(tried, func(c candidate) bool { return c.predictor.Basis() == b }) {
				tried = append(tried, more(b))
			}
		}
		first, least := score, best.grid.sum()+score.sum()
		for _, c := range tried {
			if c.predictor.Basis() == basis || c.grid.N < leastLeftOut {
				continue
			}
			s := c.predictor.skewScore(asked, samples)
			scores = append(scores, s)
			// Skew data that are wrong themselves are explained by none.
			if total := c.grid.sum() + s.sum(); s.sum() < first.sum()/2 && total < least {
				best, least = c, total
			}
		}
	}
	best.predictor.calibration.Skew = scores
	return best
}
