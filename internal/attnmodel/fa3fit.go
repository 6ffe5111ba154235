package attnmodel

import "math"

// Fit options that all models share.
const (
	fitScale = 0.02 // relative errors beyond 2% count linearly
	fitPull  = 4.0  // pull to the start, per squared log
	fitRows  = 150  // most rows a kernel is fitted on
	fitSteps = 8
)

// FitFA3 fits each kernel's constants to the samples that run it, at most some
// hundreds of each, by soft-L1 of log(model/measured). A kernel without
// samples keeps its start.
func FitFA3(g Geometry, samples []Sample, start FA3Params) FA3Params {
	return fitFA3(g, samples, start, fitSteps)
}

func fitFA3(g Geometry, samples []Sample, start FA3Params, steps int) FA3Params {
	if !g.Valid() {
		return start
	}
	var of [fa3Kernels / 2][]fa3Fitted
	for _, s := range samples {
		if !(s.TimeUS > 0) || len(s.Runs) == 0 {
			continue
		}
		f := fa3Fitted{runs: s.Runs, shape: g.fa3Shape(s.Runs), logUS: math.Log(s.TimeUS), weight: s.fitWeight()}
		k := f.shape.kernel
		// Small and large tiles have constants of their own for splits, which
		// the two decode kernels share.
		of[k/2] = append(of[k/2], f)
	}
	out := start
	type job struct {
		rows  []fa3Fitted
		first FA3Kernel
		both  bool
	}
	jobs := []job{{of[0], FA3Decode, true}}
	for _, k := range []FA3Kernel{FA3Small, FA3Large} {
		var plain, split []fa3Fitted
		for _, f := range of[k/2] {
			if f.shape.kernel == k {
				plain = append(plain, f)
			} else {
				split = append(split, f)
			}
		}
		jobs = append(jobs, job{plain, k, false}, job{split, k + 1, false})
	}
	parallel(2, len(jobs), func(i int) {
		// The largest jobs last in the list would leave one worker idle.
		j := jobs[len(jobs)-1-i]
		if len(j.rows) == 0 {
			return
		}
		c, f0split := fitFA3Class(g, chosen(j.rows, func(f *fa3Fitted) bool { return f.weight > 1 }), start[j.first], start[min(j.first+1, fa3Kernels-1)].F0, j.both, steps)
		out[j.first] = c
		if j.both {
			c.F0 = f0split
			out[j.first+1] = c
		}
	})
	return out
}

// chosen are the rows that a class is fitted on: those that must be, and as
// many of the others.
func chosen[T any](rows []T, must func(*T) bool) []T {
	var first, others []T
	for i := range rows {
		if must(&rows[i]) {
			first = append(first, rows[i])
		} else {
			others = append(others, rows[i])
		}
	}
	return append(spread(first, fitRows), spread(others, fitRows)...)
}

// spread keeps at most n of the rows, in an order that has nothing to do with
// theirs but is always the same.
func spread[T any](rows []T, n int) []T {
	if len(rows) <= n {
		return rows
	}
	out := make([]T, 0, n)
	// A stride prime to the length visits every row once.
	stride := int(0.6180339887*float64(len(rows))) | 1
	for gcd(stride, len(rows)) != 1 {
		stride += 2
	}
	for i, at := 0, 0; i < n; i++ {
		out = append(out, rows[at])
		at = (at + stride) % len(rows)
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// fa3Fitted is a sample with what does not change during a fit.
type fa3Fitted struct {
	runs   []Run
	shape  fa3Shape
	logUS  float64
	weight float64
}

// Positions in the vector of logarithms that is fitted.
const (
	fa3A = iota
	fa3Tau
	fa3Phi
	fa3Ad
	fa3Taud
	fa3F0
	fa3BW
	fa3P
	fa3L2
	fa3G2
	fa3F0Split // of the decode kernels only
)

// fa3Plan is one schedule: it depends on A, Tau and Phi alone.
type fa3Plan struct {
	makespan float64
	demand   [demandBins]float64
}

func fitFA3Class(g Geometry, rows []fa3Fitted, c FA3Class, f0split float64, both bool, steps int) (FA3Class, float64) {
	start := []float64{math.Log(c.A), math.Log(c.Tau), math.Log(c.Phi), math.Log(c.Ad), math.Log(c.Taud), math.Log(c.F0),
		math.Log(c.BW), math.Log(c.P), math.Log(c.L2), math.Log(c.G2)}
	if both {
		start = append(start, math.Log(f0split))
	}
	k := len(start)
	class := func(x []float64) FA3Class {
		return FA3Class{A: math.Exp(x[fa3A]), Tau: math.Exp(x[fa3Tau]), Phi: math.Exp(x[fa3Phi]), Ad: math.Exp(x[fa3Ad]), Taud: math.Exp(x[fa3Taud]), F0: math.Exp(x[fa3F0]),
			BW: math.Exp(x[fa3BW]), P: math.Exp(x[fa3P]), L2: math.Exp(x[fa3L2]), G2: math.Exp(x[fa3G2])}
	}
	plans := make([]fa3Plan, len(rows))
	trial := make([]fa3Plan, len(rows))
	schedule := func(c FA3Class, into []fa3Plan) {
		sc := scratchPool.Get().(*scratch)
		for i := range rows {
			g.fa3Schedule(rows[i].runs, &rows[i].shape, &c, sc)
			into[i] = fa3Plan{sc.makespan, sc.demand}
		}
		scratchPool.Put(sc)
	}
	var soft softMax
	evaluate := func(x []float64, plans []fa3Plan, r []float64) {
		c := class(x)
		soft.bake(c.P)
		for i := range rows {
			f := &rows[i]
			if both && f.shape.splits > 1 {
				c.F0 = math.Exp(x[fa3F0Split])
			} else {
				c.F0 = math.Exp(x[fa3F0])
			}
			r[i] = math.Log(f.shape.timeUS(&c, &soft, plans[i].makespan, &plans[i].demand)) - f.logUS
		}
	}
	moved := make([]float64, len(rows))
	p := problem{
		scale: fitScale, steps: steps,
		pull: make([]float64, k), lo: make([]float64, k), hi: make([]float64, k),
		weight: func(i int) float64 { return rows[i].weight },
		residuals: func(x, r []float64) {
			schedule(class(x), trial)
			evaluate(x, trial, r)
		},
		jacobian: func(x, r, jac []float64) {
			schedule(class(x), plans)
			evaluate(x, plans, r)
			for a := range k {
				const h = 0.01
				was := x[a]
				x[a] += h
				if a <= fa3Taud {
					schedule(class(x), trial)
					evaluate(x, trial, moved)
				} else {
					evaluate(x, plans, moved)
				}
				x[a] = was
				for i := range rows {
					jac[i*k+a] = (moved[i] - r[i]) / h
				}
			}
		},
	}
	for a := range k {
		p.pull[a] = fitPull
		p.lo[a], p.hi[a] = start[a]-2.5, start[a]+2.5
		if both && (a == fa3Ad || a == fa3Taud) {
			p.lo[a], p.hi[a] = start[a], start[a] // all are decodes
		}
	}
	p.hi[fa3Phi] = math.Log(0.95)
	x := p.solve(start, len(rows))
	f0 := math.Exp(x[fa3F0])
	if both {
		f0 = math.Exp(x[fa3F0Split])
	}
	return class(x), f0
}
