package attnmodel

import "math"

// levels is the state of a list schedule: how many multiprocessors become free
// at which time, ascending. Multiprocessors that are free at the same time are
// one entry, so that equal tiles are placed together.
type levels struct {
	buf  []level
	head int
	last float64 // the latest time at which any tile ends
	// near is how close two times are taken as one: 0 where few tiles are
	// unlike, so that the schedule is exact.
	near float64
}

type level struct {
	at    float64
	count int
}

// reset frees all n multiprocessors at time 0.
func (l *levels) reset(n int) {
	l.buf = append(l.buf[:0], level{0, n})
	l.head, l.last, l.near = 0, 0, 0
}

// place runs n tiles of the given cost, each on the multiprocessor that is free
// first. If spans is not nil, each placement is appended to it with the given
// weight a tile.
func (l *levels) place(n int, cost, weight float64, spans *[]span) {
	for n > 0 {
		first := &l.buf[l.head]
		take := min(first.count, n)
		start := first.at
		end := start + cost
		if spans != nil && weight > 0 {
			*spans = append(*spans, span{start, end, weight * float64(take)})
		}
		if take < first.count {
			first.count -= take
		} else {
			l.head++
		}
		l.insert(end, take)
		n -= take
	}
}

// insert adds multiprocessors that become free at a time. The buffer has room
// on both sides, and the shorter side moves.
func (l *levels) insert(at float64, count int) {
	n := len(l.buf)
	if at >= l.last {
		l.last = at
		if n > l.head && at-l.buf[n-1].at <= l.near {
			l.buf[n-1].join(at, count)
			return
		}
		l.buf = append(l.buf, level{at, count})
		l.compact()
		return
	}
	lo, hi := l.head, n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if l.buf[mid].at < at {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < n && l.buf[lo].at-at <= l.near {
		l.buf[lo].join(at, count)
		return
	}
	if lo > l.head && at-l.buf[lo-1].at <= l.near {
		l.buf[lo-1].join(at, count)
		return
	}
	if l.head > 0 && lo-l.head <= n-lo {
		copy(l.buf[l.head-1:], l.buf[l.head:lo])
		l.head--
		l.buf[lo-1] = level{at, count}
		return
	}
	l.buf = append(l.buf, level{})
	copy(l.buf[lo+1:], l.buf[lo:n])
	l.buf[lo] = level{at, count}
	l.compact()
}

// join adds multiprocessors that become free at about the same time.
func (v *level) join(at float64, count int) {
	v.at += (at - v.at) * float64(count) / float64(count+v.count)
	v.count += count
}

// compact keeps the buffer from growing with the tiles that were placed.
func (l *levels) compact() {
	if l.head >= 512 && l.head*2 >= len(l.buf) {
		n := copy(l.buf[8:], l.buf[l.head:])
		l.buf, l.head = l.buf[:8+n], 8
	}
}

// span is a group of tiles that run from start to end.
type span struct{ start, end, weight float64 }

// demandBins is the number of equal parts of a schedule over which the demand
// on memory is averaged.
const demandBins = 96

// demand averages the spans' weight over equal parts of [0, makespan].
func demand(spans []span, makespan float64, out *[demandBins]float64) {
	var step [demandBins + 1]float64
	*out = [demandBins]float64{}
	if !(makespan > 0) || math.IsInf(makespan, 1) {
		return
	}
	scale := demandBins / makespan
	for _, s := range spans {
		x0, x1 := s.start*scale, s.end*scale
		if !(x0 >= 0 && x1 >= x0) {
			continue // constants that no kernel has, on the way of a fit
		}
		b0, b1 := min(int(x0), demandBins-1), min(int(x1), demandBins-1)
		if b0 == b1 {
			out[b0] += s.weight * (x1 - x0)
			continue
		}
		out[b0] += s.weight * (float64(b0+1) - x0)
		out[b1] += s.weight * (x1 - float64(b1))
		step[b0+1] += s.weight
		step[b1] -= s.weight
	}
	run := 0.0
	for i := range out {
		run += step[i]
		out[i] += run
	}
}
