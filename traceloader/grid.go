package traceloader

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// grid is attention.csv as measured: slices by (prefill_chunk, n_decode), in a
// slice one row of points per kv_prefill. It is ragged: every slice has its
// own kv_prefill list, every row its own kv_decode list. It answers by the
// text of the rules, with searches; packed is the same in the shape that
// lookups run on, and Explain runs here.
type grid struct {
	pcs, nds []int // distinct over the file
	kps, kds []int
	slices   []gridSlice // ascending (pc, nd)
	points   int
}

type gridSlice struct {
	pc, nd int
	kps    []int
	rows   []gridRow // by kps
}

type gridRow struct {
	kds []int
	ns  []float64 // whole numbers
}

// maxMarked bounds the bitmap by which distinct values are found.
const maxMarked = 1 << 22

// distinct returns the sorted distinct values of a column.
func distinct(rows []perfio.AttentionRow, column func(*perfio.AttentionRow) int) []int {
	var vs []int
	last := 0
	for i := range rows {
		last = max(last, column(&rows[i]))
	}
	if last >= maxMarked {
		for i := range rows {
			vs = append(vs, column(&rows[i]))
		}
		slices.Sort(vs)
		return slices.Compact(vs)
	}
	marks := make([]uint64, last/64+1)
	for i := range rows {
		v := column(&rows[i])
		marks[v/64] |= 1 << (v % 64)
	}
	for at, m := range marks {
		for ; m != 0; m &= m - 1 {
			vs = append(vs, at*64+bits.TrailingZeros64(m))
		}
	}
	return vs
}

func newGrid(rows []perfio.AttentionRow, o *Options, warn func(string, ...any)) (*grid, error) {
	ns := make([]float64, len(rows))
	for i := range rows {
		r := &rows[i]
		for _, k := range [...]struct {
			field string
			v     int
		}{{"prefill_chunk", r.PrefillChunk}, {"kv_prefill", r.KVPrefill}, {"n_decode", r.NDecode}, {"kv_decode", r.KVDecode}} {
			if err := checkKey(k.field, k.v, 0); err != nil {
				return nil, fmt.Errorf("row %d: %w", i+1, err)
			}
		}
		v, err := latencyNS(r.TimeUS)
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", i+1, err)
		}
		ns[i] = v
	}
	g := &grid{
		pcs: distinct(rows, func(r *perfio.AttentionRow) int { return r.PrefillChunk }),
		kps: distinct(rows, func(r *perfio.AttentionRow) int { return r.KVPrefill }),
		nds: distinct(rows, func(r *perfio.AttentionRow) int { return r.NDecode }),
		kds: distinct(rows, func(r *perfio.AttentionRow) int { return r.KVDecode }),
	}
	order := g.order(rows)

	// The lists are cut from a few large arrays: thousands of small ones would
	// cost more than all the rest.
	kds := make([]int, 0, len(rows))
	vals := make([]float64, 0, len(rows))
	kps := make([]int, 0, len(rows))
	groups := make([]gridRow, 0, len(rows))
	for at := 0; at < len(order); {
		first := &rows[order[at]]
		pc, nd := first.PrefillChunk, first.NDecode
		kpFrom := len(kps)
		for at < len(order) && rows[order[at]].PrefillChunk == pc && rows[order[at]].NDecode == nd {
			kp, from := rows[order[at]].KVPrefill, len(kds)
			for ; at < len(order); at++ {
				r := &rows[order[at]]
				if r.PrefillChunk != pc || r.NDecode != nd || r.KVPrefill != kp {
					break
				}
				if len(kds) > from && kds[len(kds)-1] == r.KVDecode {
					const found = "row %d: found prefill_chunk %d, kv_prefill %d, n_decode %d, kv_decode %d again, "
					if !o.Lenient {
						return nil, fmt.Errorf(found+"expected each key once", order[at]+1, pc, kp, nd, r.KVDecode)
					}
					warn(found+"the first is taken", order[at]+1, pc, kp, nd, r.KVDecode)
					continue
				}
				kds = append(kds, r.KVDecode)
				vals = append(vals, ns[order[at]])
			}
			kps = append(kps, kp)
			groups = append(groups, gridRow{kds[from:len(kds):len(kds)], vals[from:len(vals):len(vals)]})
		}
		g.slices = append(g.slices, gridSlice{pc, nd, kps[kpFrom:len(kps):len(kps)], groups[kpFrom:len(groups):len(groups)]})
	}
	g.points = len(vals)
	return g, nil
}

// order returns the rows' indexes sorted by (pc, nd, kp, kd), equal keys in
// the order of the file. Ranks on the axes are packed into one word, which
// sorts several times faster than the four keys.
func (g *grid) order(rows []perfio.AttentionRow) []int32 {
	order := make([]int32, len(rows))
	kdBits := bits.Len(uint(len(g.kds)))
	kpBits := bits.Len(uint(len(g.kps)))
	ndBits := bits.Len(uint(len(g.nds)))
	rowBits := bits.Len(uint(len(rows)))
	if bits.Len(uint(len(g.pcs)))+ndBits+kpBits+kdBits+rowBits > 64 {
		for i := range order {
			order[i] = int32(i)
		}
		slices.SortStableFunc(order, func(a, b int32) int {
			x, y := &rows[a], &rows[b]
			for _, d := range [...]int{x.PrefillChunk - y.PrefillChunk, x.NDecode - y.NDecode, x.KVPrefill - y.KVPrefill, x.KVDecode - y.KVDecode} {
				if d != 0 {
					return d
				}
			}
			return 0
		})
		return order
	}
	words := make([]uint64, len(rows))
	pc, nd, kp, kd := newIndex(g.pcs), newIndex(g.nds), newIndex(g.kps), newIndex(g.kds)
	for i := range rows {
		r := &rows[i]
		w := uint64(pc.of(r.PrefillChunk))
		w = w<<ndBits | uint64(nd.of(r.NDecode)-1)
		w = w<<kpBits | uint64(kp.of(r.KVPrefill)-1)
		w = w<<kdBits | uint64(kd.of(r.KVDecode)-1)
		words[i] = w<<rowBits | uint64(i)
	}
	slices.Sort(words)
	for i, w := range words {
		order[i] = int32(w & (1<<rowBits - 1))
	}
	return order
}

// slice returns the measured slice (pc, nd), nil where there is none.
func (g *grid) slice(pc, nd int) *gridSlice {
	i, found := slices.BinarySearchFunc(g.slices, [2]int{pc, nd}, func(s gridSlice, k [2]int) int {
		if s.pc != k[0] {
			return s.pc - k[0]
		}
		return s.nd - k[1]
	})
	if !found {
		return nil
	}
	return &g.slices[i]
}

// nearest returns the index of the slice nearest to (pc, nd), the first in
// ascending order of several.
func (g *grid) nearest(pc, nd int) int {
	best, at := ^uint64(0), 0
	for i := range g.slices {
		dp, dn := int64(g.slices[i].pc-pc), int64(g.slices[i].nd-nd)
		if d := uint64(dp*dp) + uint64(dn*dn); d < best {
			best, at = d, i
		}
	}
	return at
}

// corner returns the slice that answers for (pc, nd) and whether it is
// another one's.
func (g *grid) corner(pc, nd int) (s *gridSlice, borrowed bool) {
	if s := g.slice(pc, nd); s != nil {
		return s, false
	}
	return &g.slices[g.nearest(pc, nd)], true
}

func (r *gridRow) at(kd int) float64 {
	lo, hi, t := axisBracket(r.kds, kd)
	return lerp(r.ns[lo], r.ns[hi], t)
}

func (s *gridSlice) at(kp, kd int) float64 {
	lo, hi, t := axisBracket(s.kps, kp)
	return lerp(s.rows[lo].at(kd), s.rows[hi].at(kd), t)
}

// latency is the four-dimensional lookup of the rules.
func (g *grid) latency(pc, kp, nd, kd int) int64 {
	pc, kp, nd, kd = max(pc, 0), max(kp, 0), max(nd, 0), max(kd, 0)
	p0, p1, tp := axisBracket(g.pcs, pc)
	n0, n1, tn := axisBracket(g.nds, nd)
	value := func(i, j int) float64 {
		s, _ := g.corner(g.pcs[i], g.nds[j])
		return s.at(kp, kd)
	}
	v0 := lerp(value(p0, n0), value(p0, n1), tn)
	v1 := lerp(value(p1, n0), value(p1, n1), tn)
	return wholeNS(lerp(v0, v1, tp))
}

// ends returns the places of a bracket that have a weight.
func ends(lo, hi int, t float64) [2]int {
	switch t {
	case 0:
		return [2]int{lo, lo}
	case 1:
		return [2]int{hi, hi}
	}
	return [2]int{lo, hi}
}

// pair visits the one or two places of ends.
func pair(e [2]int, visit func(int)) {
	visit(e[0])
	if e[1] != e[0] {
		visit(e[1])
	}
}

// beyondSigma is what is to be added to one standard error of a batch for each
// axis that it leaves.
func (g *grid) beyondSigma(pc, kp, nd, longest int) float64 {
	sum := 0.0
	for _, a := range [...]struct {
		axis []int
		q    int
	}{{g.pcs, pc}, {g.kps, kp}, {g.nds, nd}, {g.kds, longest}} {
		if n := len(a.axis); n > 0 {
			far := farSigma(a.q, a.axis[n-1])
			sum += far * far
		}
	}
	return math.Sqrt(sum)
}

// answer tells how latency finds its answer: the worst over all points that
// have a weight in it.
func (g *grid) answer(pc, kp, nd, kd int) Answer {
	a := Answer{PrefillChunk: axisStatus(g.pcs, pc), NDecode: axisStatus(g.nds, nd)}
	if pc < 0 || kp < 0 || nd < 0 || kd < 0 {
		pc, kp, nd, kd = max(pc, 0), max(kp, 0), max(nd, 0), max(kd, 0)
		a.Status = Clamped
	}
	p := ends(axisBracket(g.pcs, pc))
	n := ends(axisBracket(g.nds, nd))
	pair(p, func(i int) {
		pair(n, func(j int) {
			s, borrowed := g.corner(g.pcs[i], g.nds[j])
			if borrowed {
				a.BorrowedCorners++
			}
			a.KVPrefill = worse(a.KVPrefill, listStatus(s.kps, g.kps, kp))
			pair(ends(axisBracket(s.kps, kp)), func(k int) {
				a.KVDecode = worse(a.KVDecode, listStatus(s.rows[k].kds, g.kds, kd))
			})
		})
	})
	a.Status = worse(a.Status, max(a.PrefillChunk, a.NDecode, a.KVPrefill, a.KVDecode))
	if a.BorrowedCorners > 0 {
		a.Status = Borrowed
	}
	return a
}
