package attnmodel

import "math/bits"

// wheel is the state of a list schedule as levels is, for many unlike tiles:
// times within one slot are taken as one, so that adding one costs the same
// however many there are. All times lie between the earliest and a tile's
// length behind it, which the slots go round.
type wheel struct {
	fresh int     // multiprocessors that have run nothing yet
	early float64 // by how much longer their first tiles take, as a share
	last  float64 // the latest time at which any tile ends
	per   float64 // slots per unit of time
	first int     // no slot before it is in use; it counts on, round after round
	count int     // multiprocessors
	// spans are the placements: of equal tiles that follow one another, those
	// that start within blur of one another are one, with the mean of their
	// times.
	spans  []span
	blur   float64
	used   [wheelSlots / 64]uint64
	slots  [wheelSlots]level
	shares []float64 // 1/i
}

const (
	wheelSlots = 1024
	wheelMask  = wheelSlots - 1
)

// reset frees all n multiprocessors at time 0, for tiles of at most the given
// cost, with slots of at least the given width.
func (w *wheel) reset(n int, width, cost, early float64) {
	for len(w.shares) <= n {
		w.shares = append(w.shares, 1/float64(len(w.shares)))
	}
	w.fresh, w.count, w.early, w.last, w.first = n, n, early, 0, 0
	w.spans, w.blur = w.spans[:0], 0
	w.per = 1 / max(width, cost*(1+early)/(wheelSlots-2))
	for k, used := range w.used {
		for ; used != 0; used &= used - 1 {
			w.slots[k<<6+bits.TrailingZeros64(used)] = level{}
		}
		w.used[k] = 0
	}
}

// next is the first slot in use. There must be one.
func (w *wheel) next() int {
	// Most often it is the one that it was before, and the processor need not
	// wait for the bits.
	if i := w.first & wheelMask; w.slots[i].count > 0 {
		return i
	}
	for {
		if b := w.used[w.first>>6&(wheelSlots/64-1)] >> (w.first & 63); b != 0 {
			w.first += bits.TrailingZeros64(b)
			return w.first & wheelMask
		}
		w.first = w.first | 63 + 1
	}
}

// place runs n tiles of the given cost, each on the multiprocessor that is free
// first, and notes when, with the weight of a tile; tiles of weight 0 are not
// noted.
func (w *wheel) place(n int, cost, weight float64) {
	var sum span // the times of tiles that are noted together, by count
	until := 0.0
	for n > 0 {
		var start, end float64
		var take int
		if w.fresh > 0 {
			take = min(w.fresh, n)
			w.fresh -= take
			end = cost * (1 + w.early)
		} else {
			i := w.next()
			s := &w.slots[i]
			take = min(s.count, n)
			start = s.at
			if s.count -= take; s.count == 0 {
				w.used[i>>6] &^= 1 << (i & 63)
				s.at = 0
			}
			end = start + cost
		}
		w.insert(end, take)
		n -= take
		count := float64(take)
		if sum.weight > 0 && !(start < until) {
			w.note(&sum, weight)
			sum = span{}
		}
		if sum.weight == 0 {
			if n == 0 && weight > 0 {
				w.spans = append(w.spans, span{start, end, weight * count})
				return
			}
			until = start + w.blur
		}
		sum.weight += count
		sum.start += start * count
		sum.end += end * count
	}
	w.note(&sum, weight)
}

func (w *wheel) note(s *span, weight float64) {
	if s.weight > 0 && weight > 0 {
		per := 1 / s.weight
		w.spans = append(w.spans, span{s.start * per, s.end * per, weight * s.weight})
	}
}

// insert adds multiprocessors that become free at a time.
func (w *wheel) insert(at float64, count int) {
	if at > w.last {
		w.last = at
	}
	// Constants that no kernel has may lead anywhere, on the way of a fit.
	i := min(max(int(at*w.per), w.first), w.first+wheelMask) & wheelMask
	w.used[i>>6] |= 1 << (i & 63)
	s := &w.slots[i] // empty ones have count 0
	s.count += count
	s.at += (at - s.at) * float64(count) * w.shares[s.count]
}

// earliest is when the first multiprocessor is free.
func (w *wheel) earliest() float64 {
	if w.fresh > 0 {
		return 0
	}
	return w.slots[w.next()].at
}

// fill runs tiles of a small cost, work in all: rather than one by one, it
// raises the earliest times as far as their work reaches.
func (w *wheel) fill(work float64) {
	if !(work > 0) {
		return
	}
	at, count := 0.0, w.fresh
	if count == 0 {
		at, count = w.take()
	}
	w.fresh = 0
	first := w.first
	for count < w.count {
		first = w.first
		i := w.next()
		need := (w.slots[i].at - at) * float64(count)
		if !(need < work) {
			break
		}
		work -= max(need, 0)
		next, n := w.take()
		at, count = next, count+n
	}
	w.first = first // the times that were raised may stay before the next one
	w.insert(at+work/float64(count), count)
}

// take empties the first slot.
func (w *wheel) take() (at float64, count int) {
	i := w.next()
	w.used[i>>6] &^= 1 << (i & 63)
	at, count = w.slots[i].at, w.slots[i].count
	w.slots[i] = level{}
	return at, count
}
