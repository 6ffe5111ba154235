package traceloader

import "math/bits"

// maxIndexLen bounds the memory of one index: 64 Ki entries of two bytes.
const maxIndexLen = 1 << 16

// index answers "how many of the sorted values are at most q" with one load.
// Keys of a grid share factors of two, which the shift takes out.
type index struct {
	count []uint16 // by q >> shift
	shift uint8
	xs    []int // searched where a direct table would be too large
}

func newIndex(xs []int) index {
	or := 0
	for _, x := range xs {
		or |= x
	}
	shift := uint8(0)
	if or != 0 {
		shift = uint8(bits.TrailingZeros(uint(or)))
	}
	ix := index{shift: shift, xs: xs}
	last := xs[len(xs)-1] >> shift
	if last >= maxIndexLen || len(xs) > 1<<16-1 {
		return ix
	}
	ix.count = make([]uint16, last+1)
	at := 0
	for q := range ix.count {
		for at < len(xs) && xs[at]>>shift <= q {
			at++
		}
		ix.count[q] = uint16(at)
	}
	return ix
}

// of returns the count for q >= 0.
func (ix *index) of(q int) int {
	if len(ix.count) == 0 {
		return countAtMost(ix.xs, q)
	}
	// The last entry stands for all that lies beyond it. min is a conditional
	// move: a branch here would be mispredicted on grids that batches outgrow.
	return int(ix.count[min(q>>(ix.shift&63), len(ix.count)-1)])
}
