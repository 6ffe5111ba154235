package traceloader

import (
	"fmt"
	"math"
	"slices"
)

// maxKey bounds the keys of all tables: products and squares of keys stay
// exact in int64 and float64.
const maxKey = 1 << 31

// maxNS bounds latencies: integers up to it are exact in float64.
const maxNS = 1 << 53

// latencyNS is how the bundle's microseconds become nanoseconds, once, when a
// table is built.
func latencyNS(timeUS float64) (float64, error) {
	ns := math.RoundToEven(timeUS * 1000)
	if !(timeUS > 0) || ns > maxNS {
		return 0, fmt.Errorf("time_us: found %v, expected a time above 0 and at most %d ns", timeUS, int64(maxNS))
	}
	return max(1, ns), nil
}

// wholeNS is max(1, trunc(v)).
func wholeNS(v float64) int64 {
	n := int64(v)
	if n >= 1 && n < math.MaxInt64 {
		return n
	}
	return edgeNS(v)
}

// edgeNS keeps the conversion of out-of-range floats, which differs between
// machines, out of results: an absurd extrapolation saturates.
func edgeNS(v float64) int64 {
	if v >= math.MaxInt64 {
		return math.MaxInt64
	}
	return 1
}

// lerp is a + t*(b - a) without a fused multiply-add.
func lerp(a, b, t float64) float64 { return a + float64(t*(b-a)) }

// axisBracket finds the neighbours of q in the sorted values v and its place
// between them: (0, 0, 0) for one value or q at most the first, the last two
// with t of 1 or more from the last one on.
func axisBracket(v []int, q int) (lo, hi int, t float64) {
	n := len(v)
	if n == 1 || q <= v[0] {
		return 0, 0, 0
	}
	i := min(countAtMost(v, q), n-1)
	return i - 1, i, float64(q-v[i-1]) / float64(v[i]-v[i-1])
}

// countAtMost is the number of values of the sorted v that are <= q.
func countAtMost(v []int, q int) int {
	i, found := slices.BinarySearch(v, q)
	if found {
		i++
	}
	return i
}

// axisStatus says what a lookup at q on all measured values of an axis is.
// Beyond the last one it is an extrapolation, also where there is only one
// value and the rules hold it.
func axisStatus(v []int, q int) Status {
	switch i, found := slices.BinarySearch(v, q); {
	case found:
		return Measured
	case i == 0:
		return Clamped
	case i == len(v):
		return Extrapolated
	}
	return Interpolated
}

// listStatus is axisStatus on the list of one slice or row of a grid, whose
// axis has the values axis: a list of one value is held where others go on.
// That is ordinary where the coordinate has no meaning, as kv_prefill has none
// without a prefill.
func listStatus(list, axis []int, q int) Status {
	s := axisStatus(list, q)
	if s == Extrapolated && len(list) == 1 && q <= axis[len(axis)-1] {
		return Clamped
	}
	return s
}
