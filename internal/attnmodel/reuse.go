package attnmodel

import "math"

// keyBlockBytes is a key block of 128 tokens of one head, keys and values of
// 128 numbers of two bytes.
const keyBlockBytes = 65536

// Reads are told apart by how long before them another head of the group read
// the same keys: octaves of time, from half a key block on, and at last those
// that nothing of the batch has read before.
const (
	reuseOctaves = 14
	reuseLowest  = 0.5
	readCold     = reuseOctaves
	readKinds    = reuseOctaves + 1
	readBins     = 48
)

// read is a span with the kind of its reads.
type read struct {
	span
	kind int
	part float64 // of the octave
}

// reads are a schedule's demand on memory by kind, over equal parts of it.
type reads struct {
	demand [readKinds][readBins]float64
	total  [readKinds]float64
	part   [readKinds]float64 // where in the octave the reads are on average
}

// kindOf is the octave of a time and the place in it.
func kindOf(later float64) (int, float64) {
	bits := math.Float64bits(later * (1 / reuseLowest))
	octave := int(bits>>52) - 1023
	switch {
	case octave < 0:
		return 0, 0
	case octave >= reuseOctaves:
		return reuseOctaves - 1, 1
	}
	return octave, math.Float64frombits(bits&(1<<52-1)|1023<<52) - 1
}

// again appends the spans of a head that reads what the head before has read
// in the same order. Spans that start together drift apart by a share of their
// length.
func again(dst []read, before, now []span, drift float64) []read {
	i, left := 0, 0.0 // what is left of before[i]
	if len(before) > 0 {
		left = before[0].weight
	}
	for _, s := range now {
		want := s.weight
		for want > 1e-9*s.weight && i < len(before) {
			take := min(want, left)
			later, long := math.Abs(s.start-before[i].start), s.end-s.start
			later = later*(0.6+0.4*min(1, later/long)) + drift*long
			kind, part := kindOf(later)
			dst = append(dst, read{span{s.start, s.end, take}, kind, part})
			want -= take
			if left -= take; left <= 1e-9*before[i].weight {
				if i++; i < len(before) {
					left = before[i].weight
				}
			}
		}
	}
	return dst
}

func cold(dst []read, now []span) []read {
	for _, s := range now {
		dst = append(dst, read{s, readCold, 0})
	}
	return dst
}

// set averages the spans' weight over equal parts of [0, makespan].
func (r *reads) set(list []read, makespan float64) {
	*r = reads{}
	if !(makespan > 0) || math.IsInf(makespan, 1) {
		return
	}
	var step [readKinds][readBins + 1]float64
	scale := readBins / makespan
	for i := range list {
		s := &list[i]
		x0, x1 := s.start*scale, s.end*scale
		if !(x0 >= 0 && x1 >= x0) {
			continue // constants that no kernel has, on the way of a fit
		}
		w, kind := s.weight, s.kind
		r.total[kind] += w * (x1 - x0)
		r.part[kind] += w * (x1 - x0) * s.part
		out := &r.demand[kind]
		b0, b1 := min(int(x0), readBins-1), min(int(x1), readBins-1)
		if b0 == b1 {
			out[b0] += w * (x1 - x0)
			continue
		}
		out[b0] += w * (float64(b0+1) - x0)
		out[b1] += w * (x1 - float64(b1))
		step[kind][b0+1] += w
		step[kind][b1] -= w
	}
	for k := range r.demand {
		if r.total[k] == 0 {
			continue
		}
		r.part[k] /= r.total[k]
		run := 0.0
		for i := range r.demand[k] {
			run += step[k][i]
			r.demand[k][i] += run
		}
	}
}

// stretch is the mean factor by which contention for memory stretches a
// schedule, and that of the second half of the time that all multiprocessors
// are busy. footprint are the bytes that
// the batch reads once; x is the time of a key block from memory over that of
// its arithmetic.
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
	for k := range reuseOctaves {
		if r.total[k] > 0 {
			kinds[n], lags[n] = k, reuseLowest*float64(int(1)<<k)*(1+r.part[k])/makespan*readBins
			n++
		}
	}
	var read [readBins + 1]float64 // from memory until a bin, over what the cache holds
	last := 0.0
	to := min(max(int(readBins*s.busy/makespan), 2), readBins)
	from := to / 2
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
		if b >= from && b < to {
			busy += f
		}
	}
	return all / readBins, busy / float64(to-from)
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
}

func (v *fa2Curves) bake(c *FA2Class) {
	v.soft.bake(c.P)
	v.miss.bake(c.S)
}
