package accuracy

import (
	"math"
	"slices"
)

// Stats sums up errors, in percent.
type Stats struct {
	N    int     `json:"n"`
	P50  float64 `json:"p50"` // quantiles of the size of the error
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
	Bias float64 `json:"bias"` // median of the signed error
	// Unanswered queries are in no other number.
	Unanswered int `json:"unanswered,omitempty"`
	// Within1 and Within2 are the percentage of answers within one and two of
	// the standard errors that the rules themselves gave; absent where they
	// give none.
	Within1 float64 `json:"within_1_sigma,omitempty"`
	Within2 float64 `json:"within_2_sigma,omitempty"`
}

// Errors collects signed relative errors.
type Errors struct {
	signed     []float64
	unanswered int
	sigma      int // how many came with a sigma
	in1, in2   int
}

func (e *Errors) add(predicted float64, ok bool, measured float64) {
	if !ok || math.IsNaN(predicted) || math.IsInf(predicted, 0) || !(measured > 0) {
		e.unanswered++
		return
	}
	e.signed = append(e.signed, predicted/measured-1)
}

// Add counts one prediction, its standard error (0 where the rules give none)
// and what was measured; ok is false where the rules had no answer.
func (e *Errors) Add(predicted, sigma float64, ok bool, measured float64) {
	n := len(e.signed)
	e.add(predicted, ok, measured)
	if len(e.signed) == n || !(sigma > 0) {
		return
	}
	// The error is relative to the measurement, the sigma to the prediction.
	x := math.Abs(math.Log(predicted / measured))
	e.sigma++
	if x <= sigma {
		e.in1++
	}
	if x <= 2*sigma {
		e.in2++
	}
}

// Stats sums up.
func (e *Errors) Stats() Stats {
	s := Stats{N: len(e.signed), Unanswered: e.unanswered}
	if s.N == 0 {
		return s
	}
	signed := slices.Sorted(slices.Values(e.signed))
	size := make([]float64, len(signed))
	for i, v := range signed {
		size[i] = math.Abs(v)
	}
	slices.Sort(size)
	s.P50, s.P90, s.P99 = 100*Quantile(size, 0.5), 100*Quantile(size, 0.9), 100*Quantile(size, 0.99)
	s.Max, s.Bias = 100*size[len(size)-1], 100*Quantile(signed, 0.5)
	if e.sigma > 0 {
		s.Within1 = 100 * float64(e.in1) / float64(e.sigma)
		s.Within2 = 100 * float64(e.in2) / float64(e.sigma)
	}
	return s
}

// Quantile of sorted values, linear between them; NaN without any.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	x := q * float64(len(sorted)-1)
	i := min(int(x), len(sorted)-1)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (x-float64(i))*(sorted[i+1]-sorted[i])
}
