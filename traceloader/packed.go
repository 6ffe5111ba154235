package traceloader

import "slices"

// Bounds on what packing may take; a grid beyond them, which no sweep
// produces, is answered by searches instead.
const (
	maxCorners   = 1 << 20 // corners, each with its slice
	maxNearest   = 1 << 26 // steps of the search for the nearest slices
	maxBrackets  = 1 << 18 // prepared brackets of all lists together
	maxPackedPts = 1 << 30
)

// packed is the grid in the shape that lookups run on. Which points a query
// falls between is found once per axis, as a count on the distinct values of
// the whole file; every list of a slice or a row has, by that count, the
// bracket that it gives. A lookup is then a fixed sequence of loads and
// arithmetic without a branch on data.
type packed struct {
	pc, nd, kp, kd index
	pcBracket      []bracket // by count
	ndBracket      []bracket
	corners        []int32 // slice by pc place * len(nds) + nd place
	width          int     // len(nds)
	slices         []packedSlice
	rows           []packedRow
	brackets       []bracket // of all kp and kd lists, one after the other
	ns             []float64
}

// bracket is where a query falls on a list: places lo and hi, and
// t = (q - x0)/w. At the edges lo = hi, and t, which is finite, has no effect.
type bracket struct {
	x0, w  float64
	lo, hi int32
}

type packedSlice struct {
	kp  int32 // first bracket of its kv_prefill list
	row int32 // first of its rows
}

type packedRow struct {
	kd int32 // first bracket of its kv_decode list
	ns int32 // first of its points
}

// bracketsOf appends, for each count on the distinct values, the bracket on
// the list, which holds some of those values.
func bracketsOf(dst []bracket, list, distinct []int) []bracket {
	for count := 0; count <= len(distinct); count++ {
		n := 0 // values of the list that are at most the query
		if count > 0 {
			n = countAtMost(list, distinct[count-1])
		}
		b := bracket{w: 1}
		if n > 0 && len(list) > 1 {
			hi := min(n, len(list)-1)
			b = bracket{float64(list[hi-1]), float64(list[hi] - list[hi-1]), int32(hi - 1), int32(hi)}
		}
		dst = append(dst, b)
	}
	return dst
}

// newPacked returns nil where the bounds forbid it.
func newPacked(g *grid) *packed {
	corners := len(g.pcs) * len(g.nds)
	if corners > maxCorners || g.points > maxPackedPts ||
		(corners-len(g.slices))*len(g.slices) > maxNearest {
		return nil
	}
	p := &packed{
		pc: newIndex(g.pcs), nd: newIndex(g.nds), kp: newIndex(g.kps), kd: newIndex(g.kds),
		pcBracket: bracketsOf(nil, g.pcs, g.pcs),
		ndBracket: bracketsOf(nil, g.nds, g.nds),
		corners:   make([]int32, 0, corners),
		width:     len(g.nds),
		slices:    make([]packedSlice, 0, len(g.slices)),
		ns:        make([]float64, 0, g.points),
	}
	at := 0
	for _, pc := range g.pcs {
		for _, nd := range g.nds {
			// Slices and corners ascend in the same order.
			if at < len(g.slices) && g.slices[at].pc == pc && g.slices[at].nd == nd {
				p.corners = append(p.corners, int32(at))
				at++
				continue
			}
			p.corners = append(p.corners, int32(g.nearest(pc, nd)))
		}
	}
	kpLists, kdLists := lists{distinct: g.kps}, lists{distinct: g.kds}
	for i := range g.slices {
		s := &g.slices[i]
		p.slices = append(p.slices, packedSlice{kpLists.place(p, s.kps), int32(len(p.rows))})
		for j := range s.rows {
			r := &s.rows[j]
			p.rows = append(p.rows, packedRow{kdLists.place(p, r.kds), int32(len(p.ns))})
			p.ns = append(p.ns, r.ns...)
		}
		if len(p.brackets) > maxBrackets {
			return nil
		}
	}
	return p
}

// lists keeps each different list of an axis once: infeasible shapes cut
// lists short, but most are the same few.
type lists struct {
	distinct []int
	seen     [][]int
	at       []int32
	last     int
}

func (l *lists) place(p *packed, list []int) int32 {
	if len(l.seen) > 0 && slices.Equal(l.seen[l.last], list) {
		return l.at[l.last]
	}
	for i, s := range l.seen {
		if slices.Equal(s, list) {
			l.last = i
			return l.at[i]
		}
	}
	at := int32(len(p.brackets))
	p.brackets = bracketsOf(p.brackets, list, l.distinct)
	l.seen, l.at, l.last = append(l.seen, list), append(l.at, at), len(l.seen)
	return at
}

// cell is all of a lookup that does not depend on kv_decode.
type cell struct {
	tp, tn float64
	corner [4]cornerCell
}

type cornerCell struct {
	lo, hi packedRow
	t      float64
}

func (p *packed) locate(c *cell, pc, kp, nd int) {
	pb := &p.pcBracket[p.pc.of(pc)]
	nb := &p.ndBracket[p.nd.of(nd)]
	c.tp = (float64(pc) - pb.x0) / pb.w
	c.tn = (float64(nd) - nb.x0) / nb.w
	count, q := p.kp.of(kp), float64(kp)
	lo, hi := int(pb.lo)*p.width, int(pb.hi)*p.width
	p.corner(&c.corner[0], lo+int(nb.lo), count, q)
	p.corner(&c.corner[1], lo+int(nb.hi), count, q)
	p.corner(&c.corner[2], hi+int(nb.lo), count, q)
	p.corner(&c.corner[3], hi+int(nb.hi), count, q)
}

func (p *packed) corner(c *cornerCell, at, count int, kp float64) {
	s := p.slices[p.corners[at]]
	b := &p.brackets[int(s.kp)+count]
	c.lo = p.rows[s.row+b.lo]
	c.hi = p.rows[s.row+b.hi]
	c.t = (kp - b.x0) / b.w
}

func (p *packed) value(r packedRow, count int, kd float64) float64 {
	b := &p.brackets[int(r.kd)+count]
	lo, hi := p.ns[r.ns+b.lo], p.ns[r.ns+b.hi]
	return lo + float64(((kd-b.x0)/b.w)*(hi-lo))
}

func (p *packed) cornerValue(c *cornerCell, count int, kd float64) float64 {
	lo, hi := p.value(c.lo, count, kd), p.value(c.hi, count, kd)
	return lo + float64(c.t*(hi-lo))
}

func (p *packed) eval(c *cell, kd int) int64 {
	count, q := p.kd.of(kd), float64(kd)
	c00 := p.cornerValue(&c.corner[0], count, q)
	c01 := p.cornerValue(&c.corner[1], count, q)
	c10 := p.cornerValue(&c.corner[2], count, q)
	c11 := p.cornerValue(&c.corner[3], count, q)
	v0 := c00 + float64(c.tn*(c01-c00))
	v1 := c10 + float64(c.tn*(c11-c10))
	return wholeNS(v0 + float64(c.tp*(v1-v0)))
}

func (p *packed) latency(pc, kp, nd, kd int) int64 {
	var c cell
	p.locate(&c, max(pc, 0), max(kp, 0), max(nd, 0))
	return p.eval(&c, max(kd, 0))
}
