package replay

import (
	"math"

	"github.com/layerprof/layerprof/perfio"
)

// skewTimes are the times of a case before skew.csv rounded them.
type skewTimes struct{ mean, max, skew float64 }

// unrounded looks for times from which the row follows: each rounds to the
// printed one, and (skew-mean)/(max-mean) to the printed alpha; without an
// alpha max is no more than mean. It says whether it found them; the times are
// the printed ones if not.
func unrounded(row *perfio.SkewRow) (skewTimes, bool) {
	printed := skewTimes{row.TMeanUS, row.TMaxUS, row.TSkewUS}
	if follows(printed, row) {
		return printed, true
	}
	if !row.HasAlpha {
		return printed, false // max is printed above mean, so it was
	}
	for _, solve := range []func(*perfio.SkewRow) (skewTimes, bool){solvedForSkew, solvedForMax, solvedInSteps, nearZero} {
		if t, ok := solve(row); ok {
			return t, true
		}
	}
	return printed, false
}

const (
	timeStep  = 0.001  // of the printed times
	alphaStep = 0.0001 // of the printed alpha
)

// inside and alphaInside are places in a rounding interval, the middle first.
var (
	inside      = places(timeStep, 8)
	alphaInside = places(alphaStep, 4)
)

func places(step float64, n int) []float64 {
	list := []float64{0}
	for i := 1; i <= n; i++ {
		d := 0.49 * step * float64(i) / float64(n)
		list = append(list, d, -d)
	}
	return list
}

// follows says whether the times give the row as it is printed.
func follows(t skewTimes, row *perfio.SkewRow) bool {
	if perfio.RoundDecimals(t.mean, 3) != row.TMeanUS || perfio.RoundDecimals(t.max, 3) != row.TMaxUS || perfio.RoundDecimals(t.skew, 3) != row.TSkewUS {
		return false
	}
	if !row.HasAlpha {
		return t.max <= t.mean
	}
	alpha := perfio.RoundDecimals((t.skew-t.mean)/(t.max-t.mean), 4)
	// skew.csv tells -0.0 from 0.0: skew was a little below mean.
	return t.max > t.mean && alpha == row.Alpha && math.Signbit(alpha) == math.Signbit(row.Alpha)
}

// solvedForSkew tries a few places for mean and max, skew follows from them:
// for an alpha of ordinary size.
func solvedForSkew(row *perfio.SkewRow) (skewTimes, bool) {
	for _, dMean := range inside {
		for _, dMax := range inside {
			t := skewTimes{mean: row.TMeanUS + dMean, max: row.TMaxUS + dMax}
			for _, within := range alphaInside {
				t.skew = t.mean + (row.Alpha+within)*(t.max-t.mean)
				if follows(t, row) {
					return t, true
				}
			}
		}
	}
	return skewTimes{}, false
}

// nearZero moves mean and skew past each other, for the sign of an alpha that
// rounds to zero.
func nearZero(row *perfio.SkewRow) (skewTimes, bool) {
	if row.Alpha != 0 {
		return skewTimes{}, false
	}
	for _, dMean := range inside {
		for _, dSkew := range inside {
			t := skewTimes{mean: row.TMeanUS + dMean, max: row.TMaxUS, skew: row.TSkewUS + dSkew}
			if follows(t, row) {
				return t, true
			}
		}
	}
	return skewTimes{}, false
}

// solvedForMax lets max follow, for a large alpha, which says more about the
// difference of max and mean than their printed forms do.
func solvedForMax(row *perfio.SkewRow) (skewTimes, bool) {
	for _, dSkew := range inside {
		for _, mean := range meansFor(row, (row.TSkewUS+dSkew-row.TMeanUS)/row.Alpha) {
			t := skewTimes{mean: mean, max: mean + (row.TSkewUS+dSkew-mean)/row.Alpha}
			t.skew = t.mean + row.Alpha*(t.max-t.mean) // max was rounded
			if follows(t, row) {
				return t, true
			}
		}
	}
	return skewTimes{}, false
}

// meansFor lists places for mean, given about how far max is from it. Where the
// two are closer than their printed forms, they stand on both sides of a limit
// of rounding.
func meansFor(row *perfio.SkewRow, apart float64) []float64 {
	if row.TMaxUS > row.TMeanUS && apart < timeStep {
		return []float64{(row.TMeanUS+row.TMaxUS)/2 - apart/2}
	}
	list := make([]float64, 0, len(inside))
	for _, d := range inside {
		list = append(list, row.TMeanUS+d)
	}
	return list
}

// maxSteps bounds how many floating-point steps apart mean and max are looked
// for, maxTries how many distances are tried.
const maxSteps, maxTries = 1e6, 20000

// solvedInSteps solves rows whose mean and max differ by the noise of a
// summation only, k steps of the floating-point format. Alpha is then j/k, with
// j the steps from mean to skew, and only exact times give it.
func solvedInSteps(row *perfio.SkewRow) (skewTimes, bool) {
	step := stepAt(row.TMeanUS)
	grid := math.Max(step, stepAt(row.TSkewUS)) // all three are multiples of it, or of step
	for _, mean := range meansFor(row, (row.TSkewUS-row.TMeanUS)/row.Alpha) {
		mean = math.Round(mean/grid) * grid
		least := (math.Abs(row.TSkewUS-mean) - timeStep) / (math.Abs(row.Alpha) * step)
		most := (math.Abs(row.TSkewUS-mean) + timeStep) / (math.Abs(row.Alpha) * step)
		if !(least <= maxSteps) {
			continue // far enough apart for solvedForMax
		}
		k := math.Max(1, math.Floor(least))
		for range maxTries {
			if k > most {
				break
			}
			t := skewTimes{mean: mean, max: mean + k*step, skew: mean + math.Round(row.Alpha*k*step/grid)*grid}
			if follows(t, row) {
				return t, true
			}
			k++
		}
	}
	return skewTimes{}, false
}

// stepAt is the distance from x to the next floating-point number.
func stepAt(x float64) float64 { return math.Nextafter(x, math.Inf(1)) - x }
