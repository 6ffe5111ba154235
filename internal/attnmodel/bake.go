package attnmodel

import (
	"math"
	"slices"
)

// Baked answers a lookup by numbers, not by a list, from tables that were
// filled by a Predictor: in tens of nanoseconds rather than microseconds, at
// some loss between the tables' points. It is immutable and safe for
// concurrent use.
type Baked struct {
	quick   quick
	decode  table // n, kd
	prefill table // pc, kp
	mixed   table // pc, kp, n, kd
	skew    [2]table
	loss    bakeLoss
}

// Axes of the grid that a Predictor learned from: the distinct values,
// ascending. Zeros are left out.
type Axes struct{ PC, KP, N, KD []int }

// Bake fills the tables. prefillFirst is the order of requests that the
// numbers stand for; workers run it.
func Bake(p *Predictor, a Axes, prefillFirst bool, workers int) *Baked {
	b := &Baked{quick: quickOf(p)}
	ask := func(pc, kp, n, kd int) float64 {
		return p.TimeUS(GridRuns(nil, pc, kp, n, kd, prefillFirst))
	}
	ratio := func(pc, kp, n, kd int) float32 {
		t := ask(pc, kp, n, kd)
		if !(t > 0) {
			return 0
		}
		return float32(math.Log(t / b.quick.us(pc, kp, n, kd)))
	}
	pc, kp := positive(a.PC, 16), positive(a.KP, 16)
	n, kd := positive(a.N, 1), positive(a.KD, 16)
	pcN := p.edges(thin(pc, 10), func(v int) []Run { return GridRuns(nil, v, 1024, 1, 1024, prefillFirst) })
	kdN := p.edges(thin(kd, 12), func(v int) []Run { return GridRuns(nil, 16, 0, 1, v, prefillFirst) })
	mixed := [][]int{pcN, append([]int{0}, thin(kp, 6)...), thin(n, 9), kdN}
	b.mixed = newTable(mixed, []float64{16, 64, 1, 64}, workers, func(x []int) float32 { return ratio(x[0], x[1], x[2], x[3]) })
	nAll := thin(fill(n, 1.5), 26)
	kdAll := p.edges(thin(fill(kd, 1.5), 40), func(v int) []Run { return GridRuns(nil, 0, 0, 1, v, prefillFirst) })
	b.decode = newTable([][]int{nAll, kdAll}, []float64{1, 64}, workers, func(x []int) float32 { return ratio(0, 0, x[0], x[1]) })
	pcAll := p.edges(thin(fill(pc, 1.5), 26), func(v int) []Run { return GridRuns(nil, v, 1024, 0, 0, prefillFirst) })
	b.prefill = newTable([][]int{pcAll, append([]int{0}, thin(fill(kp, 1.5), 26)...)}, []float64{16, 64}, workers, func(x []int) float32 { return ratio(x[0], x[1], 0, 0) })
	chunk := pc[len(pc)/2]
	for i := range b.skew {
		q := i * chunk
		axes := [][]int{thin(atLeast(n, 2), 6), thin(kd, 7), skewRatios, skewRates}
		b.skew[i] = newTable(axes, []float64{1, 64, 0, 0}, workers, func(x []int) float32 {
			n, mean := x[0], x[1]
			most := float64(mean) * float64(x[2]) / skewUnit
			nb := min(max(int(math.Round(float64(x[3])/rateUnit*float64(n))), 1), n-1)
			if nb < 1 || x[2] == skewUnit {
				return 0
			}
			// The long ones have most tokens, the others what the mean leaves.
			least := (float64(mean)*float64(n) - most*float64(nb)) / float64(n-nb)
			if least < 1 {
				least = 1
				most = (float64(mean)*float64(n) - float64(n-nb)) / float64(nb)
			}
			runs := []Run{{1, int(most), nb}, {1, int(least), n - nb}}
			if q > 0 && prefillFirst {
				runs = append([]Run{{q, 0, 1}}, runs...)
			} else if q > 0 {
				runs = append(runs, Run{q, 0, 1})
			}
			t := p.TimeUS(runs)
			// By the tables' own time of alike decodes, so that its errors are
			// corrected too.
			us, share := b.alike(q, 0, n, mean)
			if !(t > 0) || !(us > 0) || share < 0.05 {
				return 0
			}
			return float32(math.Log(t/us) / share)
		})
	}
	b.measureLoss(p, a, prefillFirst, workers)
	return b
}

// Points of the skew tables: longest over mean, and the share of the way from
// the shortest to the longest where the mean lies.
const (
	skewUnit = 16
	rateUnit = 1024
)

var (
	skewRatios = []int{16, 24, 32, 64, 192}
	skewRates  = []int{8, 64, 192, 512, 900}
)

// GridRuns is a batch of the grid: a chunk, unless pc is 0, and n decodes.
func GridRuns(dst []Run, pc, kp, n, kd int, prefillFirst bool) []Run {
	chunk, tokens := Run{pc, kp, 1}, Run{1, kd, n}
	if prefillFirst {
		return AppendRun(AppendRun(dst, chunk), tokens)
	}
	return AppendRun(AppendRun(dst, tokens), chunk)
}

// UniformUS is the time of a chunk beside n decodes of kd tokens of history.
func (b *Baked) UniformUS(pc, kp, n, kd int) float64 {
	return b.quick.us(pc, kp, n, kd) * math.Exp(b.ratio(pc, kp, n, kd))
}

// ratio is the logarithm of the time over the quick bound.
func (b *Baked) ratio(pc, kp, n, kd int) float64 {
	switch {
	case pc == 0:
		return b.decode.at2(float64(n), float64(kd))
	case n == 0:
		return b.prefill.at2(float64(pc), float64(kp))
	}
	x := [maxAxes]float64{float64(pc), float64(kp), float64(n), float64(kd)}
	return b.mixed.at(&x)
}

// SkewUS is the time where the decodes have mean tokens of history, the
// longest and the shortest being given.
func (b *Baked) SkewUS(pc, kp, n, mean, longest, shortest int) float64 {
	if n <= 1 || longest <= mean || longest <= shortest {
		return b.UniformUS(pc, kp, n, mean)
	}
	longestTile, work, decodes := b.quick.parts(pc, kp, n, mean)
	bound := b.quick.f0 + b.quick.tau*(longestTile+b.quick.perSM*work)
	rate := float64(mean-shortest) / float64(longest-shortest)
	x := [maxAxes]float64{float64(n), float64(mean), skewUnit * float64(longest) / float64(max(mean, 1)), rateUnit * max(rate, 0)}
	s := &b.skew[0]
	if pc > 0 {
		s = &b.skew[1]
	}
	return bound * math.Exp(b.ratio(pc, kp, n, mean)+decodes/work*s.at(&x))
}

// alike is the time of decodes that all have mean tokens of history, and the
// share that they have of the work.
func (b *Baked) alike(pc, kp, n, mean int) (us, share float64) {
	_, work, decodes := b.quick.parts(pc, kp, n, mean)
	return b.UniformUS(pc, kp, n, mean), decodes / work
}

// positive are the values of an axis above 0, or the one given.
func positive(v []int, least int) []int {
	v = atLeast(v, 1)
	if len(v) == 0 {
		return []int{least}
	}
	return v
}

func atLeast(v []int, least int) []int {
	var out []int
	for _, x := range v {
		if x >= least {
			out = append(out, x)
		}
	}
	if len(out) == 0 {
		out = []int{least}
	}
	return out
}

// thin keeps at most n values, evenly by rank, the first and the last always.
func thin(v []int, n int) []int {
	if len(v) <= n {
		return slices.Clone(v)
	}
	out := make([]int, n)
	for i := range out {
		out[i] = v[i*(len(v)-1)/(n-1)]
	}
	return out
}

// fill puts values between those that are more than a factor apart.
func fill(v []int, factor float64) []int {
	var out []int
	for i, x := range v {
		if i > 0 && float64(x) > factor*float64(v[i-1]) {
			if mid := int(math.Sqrt(float64(x) * float64(v[i-1]))); mid > v[i-1] && mid < x {
				out = append(out, mid)
			}
		}
		out = append(out, x)
	}
	return out
}

// edges adds both sides of each place between two values where another kernel
// takes over.
func (p *Predictor) edges(v []int, batch func(int) []Run) []int {
	if p.model == nil {
		return v
	}
	out := slices.Clone(v)
	for i := range v[1:] {
		lo, hi := v[i], v[i+1]
		below := p.model.class(batch(lo))
		if below == p.model.class(batch(hi)) {
			continue
		}
		for hi-lo > 1 {
			if mid := (lo + hi) / 2; p.model.class(batch(mid)) == below {
				lo = mid
			} else {
				hi = mid
			}
		}
		out = append(out, lo, hi)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// quick is a bound by work and by the longest tile, which a table corrects:
// it has the steps of the tiles, which a table could not hold.
type quick struct {
	f0, tau, c float64 // us, us a key block, blocks a tile
	rows       int     // query tokens of a tile
	perSM      float64 // heads over multiprocessors
	phi        float64
}

func quickOf(p *Predictor) quick {
	switch m := p.model.(type) {
	case *FA2:
		c := m.Params[FA2Mixed]
		return quick{f0: c.F0, tau: c.Tau, c: c.Cd, rows: 64, phi: c.Phi,
			perSM: float64(m.Geometry.QueryHeads) / float64(m.Geometry.SMs)}
	case *FA3:
		c := m.Params[FA3Large]
		return quick{f0: c.F0, tau: c.Tau, c: c.A / c.Tau, rows: max(1, 128/m.Geometry.Group()), phi: 0.5,
			perSM: float64(m.Geometry.KVHeads) / float64(m.Geometry.SMs)}
	}
	return quick{f0: 5, tau: 2, c: 1, rows: 64, phi: 1, perSM: 0.1}
}

func (q *quick) us(pc, kp, n, kd int) float64 {
	longest, work, _ := q.parts(pc, kp, n, kd)
	return q.f0 + q.tau*(longest+q.perSM*work)
}

// parts are the longest tile, and the work of a head and of its decodes, in
// key blocks.
func (q *quick) parts(pc, kp, n, kd int) (longest, work, decodes float64) {
	if pc > 0 {
		tiles := float64((pc + q.rows - 1) / q.rows)
		longest = q.blocks(kp+pc) + q.c
		work = tiles * (longest - float64(pc)/256)
	}
	if n > 0 {
		b := q.blocks(kd+1) + q.c
		decodes = float64(n) * b
		work += decodes
		longest = max(longest, b)
	}
	return longest, work, decodes
}

func (q *quick) blocks(k int) float64 {
	return (1-q.phi)*float64((k+127)>>7) + q.phi*float64(k)/128
}
