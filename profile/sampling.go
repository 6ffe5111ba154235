package profile

import (
	"math"
	"slices"
)

// median of a list, which it sorts; 0 for an empty one.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	slices.Sort(values)
	if n%2 == 1 {
		return values[n/2]
	}
	return (values[n/2-1] + values[n/2]) / 2
}

// medianDeviation is the median absolute deviation from the median.
func medianDeviation(values []float64) float64 {
	m := median(slices.Clone(values))
	away := make([]float64, len(values))
	for i, v := range values {
		away[i] = math.Abs(v - m)
	}
	return median(away)
}

// negligibleUS is an error of a median that nobody needs to know better.
const negligibleUS = 0.1

// wantsMore reports whether the median of the samples is not known to target, a
// share of it, and to negligibleUS neither.
func wantsMore(samples []float64, target float64) bool {
	e := medianError(samples)
	return e > target && e*median(slices.Clone(samples)) > negligibleUS
}

// medianError estimates the standard error of the median as a share of it:
// 1.2533 s/sqrt(n), s the standard deviation of few samples, and of five or more
// 1.4826 times the median absolute deviation, which a single stray one does not
// move.
func medianError(values []float64) float64 {
	n := len(values)
	if n < 2 {
		return 0
	}
	if values[0] == values[1] && slices.Min(values) == slices.Max(values) {
		return 0
	}
	m := median(slices.Clone(values))
	var s float64
	if n >= 5 {
		s = 1.4826 * medianDeviation(values)
	} else {
		var mean, squares float64
		for _, v := range values {
			mean += v / float64(n)
		}
		for _, v := range values {
			squares += (v - mean) * (v - mean)
		}
		s = math.Sqrt(squares / float64(n-1))
	}
	if m <= 0 {
		return math.Inf(1)
	}
	return 1.2533 * s / math.Sqrt(float64(n)) / m
}
