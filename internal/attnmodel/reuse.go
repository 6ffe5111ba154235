package attnmodel

import "math"

// keyBlockBytes is a key block of 128 tokens of one head, keys and values of
// 128 numbers of two bytes.
const keyBlockBytes = 65536

// Reads are told apart by how long before them another head of the group read
// the same keys: by octaves of time, from half of a schedule's part on, and at
// last those that nothing of the batch has read before.
const (
	readBins  = 32
	readCold  = 8
	readKinds = readCold + 1
)

// reads are a schedule's demand on memory by kind, over equal parts of it.
type reads struct {
	demand [readKinds][readBins]float64
	total  [readKinds]float64
	lag    [readKinds]float64 // how long before on average, in parts
}

// kindOf is the octave of a time in parts of the schedule.
func kindOf(lag float64) int {
	return min(max(int(math.Float64bits(lag)>>52)-1021, 0), readCold-1)
}

// gather averages the spans' weight over equal parts of [0, makespan]. heads
// says where in spans each head's begin, and at last where they end. The heads
// of a group read the same keys in the same order, so that each but the first
// reads again what the one before has read. Spans that start together drift
// apart by a share of their length.
func (r *reads) gather(spans []span, heads []int, group int, drift, makespan float64) {
	*r = reads{}
	if !(makespan > 0) || math.IsInf(makespan, 1) {
		return
	}
	// What a part has of the spans that start or end in it, and what those add
	// to all parts behind it.
	var change [readKinds][readBins]struct{ here, behind float64 }
	scale := readBins / makespan
	for h := range len(heads) - 1 {
		now := spans[heads[h]:heads[h+1]]
		var before []span
		left := 0.0 // what is left of before[0]
		if h%group != 0 {
			before = spans[heads[h-1]:heads[h]]
			if len(before) > 0 {
				left = before[0].weight
			}
		}
		for i := range now {
			s := &now[i]
			x0, x1 := s.start*scale, s.end*scale
			if !(x0 >= 0 && x1 >= x0) {
				continue // constants that no kernel has, on the way of a fit
			}
			b0, b1 := min(int(x0), readBins-1), min(int(x1), readBins-1)
			in, not := float64(b0+1)-x0, float64(b1+1)-x1
			if h%group == 0 {
				from, to := &change[readCold][b0], &change[readCold][b1]
				from.here += s.weight * in
				from.behind += s.weight
				to.here -= s.weight * not
				to.behind -= s.weight
				r.total[readCold] += s.weight * (x1 - x0)
				continue
			}
			long := x1 - x0 // in parts
			per := 1 / long
			for want := s.weight; len(before) > 0; {
				take := min(want, left)
				lag := math.Abs(s.start-before[0].start) * scale
				lag = lag*(0.6+0.4*min(1, lag*per)) + drift*long
				kind := kindOf(lag)
				from, to := &change[kind][b0], &change[kind][b1]
				from.here += take * in
				from.behind += take
				to.here -= take * not
				to.behind -= take
				r.total[kind] += take * long
				r.lag[kind] += take * long * lag
				if left -= take; left <= 1e-9*before[0].weight {
					if before = before[1:]; len(before) > 0 {
						left = before[0].weight
					}
				}
				if want -= take; want <= 1e-9*s.weight {
					break
				}
			}
		}
	}
	for k := range r.demand {
		if k != readCold {
			if r.total[k] == 0 {
				continue
			}
			r.lag[k] /= r.total[k]
		}
		run := 0.0
		for i := range r.demand[k] {
			c := &change[k][i]
			r.demand[k][i] = c.here + run
			run += c.behind
		}
	}
}

// stretch is the mean factor by which contention for memory stretches a
// schedule, and, where some of it was left out, that of the span's time from
// from to busy. footprint are the
// bytes that the batch reads once; x is the time of a key block from memory over
// that of its arithmetic.
//
// What a head reads again comes from the cache, unless more than the cache
// holds came from memory in between: one part of the schedule follows from
// those before it.
func (r *reads) stretch(s fa2Span, footprint, x float64, c *FA2Class, curves *fa2Curves) (all, busy float64) {
	makespan := s.makespan
	if !(makespan > 0) || math.IsInf(makespan, 1) {
		return 1, 1
	}
	cache := c.L2 * 1e6
	coldMiss := curves.miss.at(footprint / cache)
	perBin := makespan / readBins * keyBlockBytes / cache
	var kinds [readKinds]int
	var lags [readKinds]float64
	n := 0
	for k := range readCold {
		if r.total[k] > 0 {
			kinds[n], lags[n] = k, r.lag[k]
			n++
		}
	}
	to := min(max(readBins*s.busy/makespan, 1), readBins)
	from := min(readBins*s.from/makespan, to-1)
	if most := r.most() * perBin; curves.miss.at(most) < fewMisses {
		// Whatever is read, the cache holds it.
		for b := range readBins {
			d := r.demand[readCold][b]
			demand := (c.G2 + (1-c.G2)*coldMiss) * d
			for _, k := range kinds[:n] {
				demand += c.G2 * r.demand[k][b]
			}
			f := curves.soft.at(demand * x)
			all += f
			if s.skipped > 0 {
				busy += f * overlap(b, from, to)
			}
		}
		return all / readBins, busy / (to - from)
	}
	var read [readBins + 1]float64 // from memory until a bin, over what the cache holds
	last := 0.0
	for b := range readBins {
		d := r.demand[readCold][b]
		missed := coldMiss * d
		demand := (c.G2 + (1-c.G2)*coldMiss) * d
		now := read[b] + 0.5*last
		for i := range n {
			d := r.demand[kinds[i]][b]
			if d == 0 {
				continue
			}
			since := last * lags[i]
			if lags[i] > 0.5 {
				since = now - at(&read, float64(b)+0.5-lags[i])
			}
			m := curves.miss.at(since)
			missed += m * d
			demand += (c.G2 + (1-c.G2)*m) * d
		}
		last = missed * perBin
		read[b+1] = read[b] + last
		f := curves.soft.at(demand * x)
		all += f
		if s.skipped > 0 {
			busy += f * overlap(b, from, to)
		}
	}
	return all / readBins, busy / (to - from)
}

// overlap is how much of part b lies between from and to.
func overlap(b int, from, to float64) float64 {
	return max(0, min(float64(b+1), to)-max(float64(b), from))
}

// fewMisses is a share of reads that miss the cache which is as good as none.
const fewMisses = 1e-4

// most is all that is read, as demand times parts.
func (r *reads) most() float64 {
	sum := 0.0
	for _, t := range r.total {
		sum += t
	}
	return sum
}

// at is y between whole numbers; 0 before the first.
func at(y *[readBins + 1]float64, x float64) float64 {
	if !(x > 0) {
		return 0
	}
	i := min(int(x), readBins-1)
	return y[i] + (x-float64(i))*(y[i+1]-y[i])
}

// missCurve is the share of reads that miss a cache, by the bytes read since
// over what it holds: 1 / (1 + ratio^-sharp), from a table.
type missCurve struct{ y [missPoints + 2]float64 }

const (
	missPoints = 256
	missMost   = 4.0
)

func (m *missCurve) bake(sharp float64) {
	for i := range m.y {
		m.y[i] = 1 / (1 + math.Pow(float64(i)*missMost/missPoints, -sharp))
	}
}

func (m *missCurve) at(ratio float64) float64 {
	if !(ratio < missMost) {
		return 1 - (1-m.y[missPoints])*missMost/max(ratio, missMost)
	}
	u := max(ratio, 0) * (missPoints / missMost)
	i := int(u)
	return m.y[i] + (u-float64(i))*(m.y[i+1]-m.y[i])
}

// fa2Curves are what is baked of a class.
type fa2Curves struct {
	soft softMax
	miss missCurve
	p, s float64 // that they were baked of
}

func (v *fa2Curves) bake(c *FA2Class) {
	v.soft.bake(c.P)
	v.miss.bake(c.S)
}

// bakeNew bakes what is not baked yet.
func (v *fa2Curves) bakeNew(c *FA2Class) {
	if v.p != c.P {
		v.soft.bake(c.P)
		v.p = c.P
	}
	if v.s != c.S {
		v.miss.bake(c.S)
		v.s = c.S
	}
}
