package attnmodel

import "math"

// fa2Scale is fitScale of FlashAttention-2: the field beside the model mends
// small errors, not the large ones where the cache overflows.
const fa2Scale = 0.05

// FitFA2 fits each kernel's constants to the samples that run it, as FitFA3
// does.
func FitFA2(g Geometry, samples []Sample, start FA2Params) FA2Params {
	return fitFA2(g, samples, start, fitSteps)
}

func fitFA2(g Geometry, samples []Sample, start FA2Params, steps int) FA2Params {
	if !g.Valid() {
		return start
	}
	var of [fa2Kernels][]int32
	for i := range samples {
		if s := &samples[i]; s.TimeUS > 0 && len(s.Runs) > 0 {
			k := g.fa2Shape(s.Runs).kernel
			of[k] = append(of[k], int32(i))
		}
	}
	out := start
	parallel(2, int(fa2Kernels), func(i int) {
		k := int(fa2Kernels) - 1 - i
		if len(of[k]) == 0 {
			return
		}
		var rows []fa2Fitted
		for _, i := range chosenFA2(samples, of[k]) {
			s := &samples[i]
			rows = append(rows, fa2Fitted{runs: s.Runs, shape: g.fa2Shape(s.Runs), logUS: math.Log(s.TimeUS), weight: s.fitWeight()})
		}
		out[k] = fitFA2Class(g, rows, start[k], steps)
	})
	return out
}

// chosenFA2 are the samples, of those given by index, that a class is fitted
// on. Half of them read enough for a cache to overflow, which is where models
// differ most and grids have few rows.
func chosenFA2(samples []Sample, rows []int32) []int32 {
	must := func(i *int32) bool { return samples[*i].fitWeight() > 1 }
	var small, large []int32
	for _, i := range rows {
		if readsMuch(samples[i].Runs) {
			large = append(large, i)
		} else {
			small = append(small, i)
		}
	}
	half := fitRows / 2
	if len(small) < half || len(large) < half {
		return chosen(rows, must)
	}
	return append(chosen(small, must)[:half:half], chosen(large, must)[:half]...)
}

// readsMuch tells whether a batch reads enough for a cache to overflow.
func readsMuch(runs []Run) bool {
	sum := 0
	for _, r := range runs {
		sum += (r.New + r.History) * r.Count
	}
	return sum > overflowTokens
}

// overflowTokens of history are 32 MB of one head's keys and values.
const overflowTokens = 1 << 16

type fa2Fitted struct {
	runs   []Run
	shape  fa2Shape
	logUS  float64
	weight float64
}

// fa2Plan is one schedule: it depends on the first constants alone.
type fa2Plan struct {
	span  fa2Span
	reads reads
}

// fa2Plans are the schedules of all rows, and what they are where heads drift
// further apart, which leaves tiles where they are.
type fa2Plans struct {
	at             FA2Class
	plans, drifted []fa2Plan
}

func newFA2Plans(n int) *fa2Plans {
	return &fa2Plans{plans: make([]fa2Plan, n), drifted: make([]fa2Plan, n)}
}

func (p *fa2Plans) schedule(g Geometry, rows []fa2Fitted, c FA2Class, drift bool, by float64) {
	p.at = c
	sc := scratchPool.Get().(*scratch)
	for i := range rows {
		sh := &rows[i].shape
		g.fa2Schedule(rows[i].runs, sh, &c, sc)
		p.plans[i] = fa2Plan{sc.plan(), sc.reads}
		if drift {
			sc.reads.gather(sc.wheel.spans, sc.heads, g.fa2Group(sh), c.Drift*by, sc.makespan)
			p.drifted[i] = fa2Plan{sc.plan(), sc.reads}
		}
	}
	scratchPool.Put(sc)
}

func fitFA2Class(g Geometry, rows []fa2Fitted, c FA2Class, steps int) FA2Class {
	const (
		scheduled = 6  // the first so many change the schedule
		fa2Drift  = 4  // of them
		added     = 12 // the others are times that are added to it
	)
	fields := func(c *FA2Class) []*float64 {
		return []*float64{&c.C, &c.Cd, &c.E, &c.Phi, &c.Drift, &c.Early, &c.Tau, &c.BW, &c.P, &c.L2, &c.G2, &c.S, &c.F0, &c.Copy, &c.Join}
	}
	var start []float64
	for _, f := range fields(&c) {
		start = append(start, math.Log(*f))
	}
	k := len(start)
	class := func(x []float64) FA2Class {
		var c FA2Class
		for i, f := range fields(&c) {
			*f = math.Exp(x[i])
		}
		return c
	}
	// plans are at the place of the last jacobian, next at that of the last
	// residuals, which most often the next jacobian is asked for.
	plans, next := newFA2Plans(len(rows)), newFA2Plans(len(rows))
	var curves fa2Curves
	evaluate := func(c *FA2Class, plans []fa2Plan, r []float64) {
		curves.bakeNew(c)
		for i := range rows {
			r[i] = math.Log(rows[i].shape.timeUS(c, &curves, plans[i].span, &plans[i].reads)) - rows[i].logUS
		}
	}
	// What does not change the schedule of any row need not be tried.
	used := fa2Used(rows)
	const h = 0.01
	moved := make([]float64, len(rows))
	p := problem{
		scale: fa2Scale, steps: steps,
		pull: make([]float64, k), lo: make([]float64, k), hi: make([]float64, k),
		weight: func(i int) float64 { return rows[i].weight },
		residuals: func(x, r []float64) {
			c := class(x)
			next.schedule(g, rows, c, used[fa2Drift], math.Exp(h))
			evaluate(&c, next.plans, r)
		},
		jacobian: func(x, r, jac []float64) {
			c := class(x)
			if next.at == c {
				plans, next = next, plans
			} else {
				plans.schedule(g, rows, c, used[fa2Drift], math.Exp(h))
			}
			evaluate(&c, plans.plans, r)
			for a := range k {
				was := x[a]
				x[a] += h
				changed := class(x)
				x[a] = was
				switch {
				case a == fa2Drift && used[a]:
					evaluate(&changed, plans.drifted, moved)
				case a < scheduled && used[a]:
					next.schedule(g, rows, changed, false, 0)
					evaluate(&changed, next.plans, moved)
				case a < scheduled || a >= added:
					continue
				default:
					evaluate(&changed, plans.plans, moved)
				}
				for i := range rows {
					jac[i*k+a] = (moved[i] - r[i]) / h
				}
			}
			next.at = FA2Class{} // without what drift does
			// What is added to the schedule's time.
			for i := range rows {
				f0, copied, join := rows[i].shape.addedUS(&c)
				us := math.Exp(r[i] + rows[i].logUS)
				row := jac[i*k+added:]
				row[0], row[1], row[2] = f0/us, copied/us, join/us
			}
		},
	}
	for a := range k {
		p.pull[a] = fitPull
		p.lo[a], p.hi[a] = start[a]-2.5, start[a]+2.5
	}
	p.hi[3] = math.Log(0.95) // phi
	return class(p.solve(start, len(rows)))
}

// fa2Used says which of the constants that change schedules do so for rows of
// one kernel: C, Cd, E, Phi, Drift, Early.
func fa2Used(rows []fa2Fitted) [6]bool {
	switch rows[0].shape.kernel {
	case FA2Decode: // no chunks, all tiles with work; heads read keys of their own
		return [6]bool{false, true, false, true, false, true}
	case FA2DecodeSplit:
		return [6]bool{false, true, true, true, false, true}
	}
	return [6]bool{true, true, true, true, true, true}
}
