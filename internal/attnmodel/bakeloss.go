package attnmodel

import (
	"math"
	"slices"
)

// bakeLoss is what tables miss of the model that filled them, between their
// points: the size that two thirds of errors are within, as logarithms.
type bakeLoss struct {
	decode, prefill, mixed, skew float64
}

// lossSamples is how many batches of each kind are asked.
const lossSamples = 60

// Loss is one standard error, relative, that an answer by numbers has beside
// that of the list they stand for. skewed: by SkewUS.
func (b *Baked) Loss(pc, n int, skewed bool) float64 {
	switch {
	case skewed:
		return b.loss.skew
	case pc == 0:
		return b.loss.decode
	case n == 0:
		return b.loss.prefill
	}
	return b.loss.mixed
}

// measureLoss asks tables and model for batches that lie between the points of
// the axes.
func (b *Baked) measureLoss(p *Predictor, a Axes, prefillFirst bool, workers int) {
	kinds := [...]struct {
		chunk, decodes, skewed bool
		loss                   *float64
	}{
		{false, true, false, &b.loss.decode}, {true, false, false, &b.loss.prefill},
		{true, true, false, &b.loss.mixed}, {true, true, true, &b.loss.skew},
	}
	parallel(workers, len(kinds), func(k int) {
		kind := kinds[k]
		var errs []float64
		for i := range lossSamples {
			pc, kp, n, kd := 0, 0, 0, 0
			if kind.chunk {
				pc, kp = between(a.PC, i, 0), between(a.KP, i, 1)
			}
			if kind.decodes {
				n, kd = between(a.N, i, 2), between(a.KD, i, 3)
			}
			var tables, model float64
			if kind.skewed {
				if i%2 == 0 {
					pc, kp = 0, 0
				}
				n, kd = max(n, 4), max(kd, 64)
				nb := max(n/(4+i%8), 1)
				longest := kd * (2 + i%2)
				least := (kd*n - nb*longest) / (n - nb)
				runs := []Run{{1, longest, nb}, {1, max(least, 1), n - nb}}
				if pc > 0 && prefillFirst {
					runs = slices.Insert(runs, 0, Run{pc, kp, 1})
				} else if pc > 0 {
					runs = append(runs, Run{pc, kp, 1})
				}
				tables, model = b.SkewUS(pc, kp, n, kd, longest, max(least, 1)), p.TimeUS(runs)
			} else {
				tables, model = b.UniformUS(pc, kp, n, kd), p.TimeUS(GridRuns(nil, pc, kp, n, kd, prefillFirst))
			}
			if tables > 0 && model > 0 {
				errs = append(errs, math.Abs(math.Log(tables/model)))
			}
		}
		if len(errs) > 0 {
			slices.Sort(errs)
			*kind.loss = errs[(len(errs)-1)*68/100]
		}
	})
}

// between is a value between two neighbours of an axis, the i-th of a sequence
// that visits all places of all axes evenly.
func between(axis []int, i, axisNumber int) int {
	if len(axis) == 0 {
		return 0
	}
	if len(axis) == 1 {
		return axis[0]
	}
	_, at := math.Modf(0.5 + float64(i+1)*lossSteps[axisNumber])
	at *= float64(len(axis) - 1)
	lo := int(at)
	return axis[lo] + int((at-float64(lo))*float64(axis[lo+1]-axis[lo]))
}

// lossSteps are those of a Kronecker sequence in four dimensions: powers of the
// inverse of the root of x^5 = x + 1.
var lossSteps = [4]float64{0.8566748838545029, 0.733891856627126, 0.6287067210378087, 0.5385972572236101}
