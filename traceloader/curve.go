package traceloader

import (
	"fmt"
	"math"
	"slices"
)

// segment is one piece of a curve: y0 + ((q-x0)/w)*dy. Everything that the
// rules say about the ends of a curve is in its first and last segment.
type segment struct{ x0, w, y0, dy float64 }

func (s *segment) at(q float64) float64 {
	return s.y0 + float64(((q-s.x0)/s.w)*s.dy)
}

// curve is latency over one integer axis.
//
// Note: gonum's interp.PiecewiseLinear rounds differently; see the package's
// note and TestGonum.
type curve struct {
	index *index    // shared by curves that have the same keys
	segs  []segment // by the number of keys that are at most q
	limit int       // the greatest q that is answered
	xs    []int
	ys    []float64
	// known are the measured keys where xs holds more than those: under the
	// accurate rules. nil: xs.
	known []int
	base  polyline // what lies between them follows it
	// failed are those of the known keys whose measurement cannot be true.
	failed []int
}

func (c *curve) measured() []int {
	if c.known != nil {
		return c.known
	}
	return c.xs
}

// point is one row of a 1-D table; row is its place in the file, for messages.
type point struct {
	x   int
	y   float64
	row int
}

// newCurve sorts the points and builds the segments of the parity rules.
func newCurve(points []point, field string, o *Options, indexes *indexCache, warn func(string, ...any)) (*curve, error) {
	slices.SortStableFunc(points, func(a, b point) int { return a.x - b.x })
	c := &curve{limit: math.MaxInt, xs: make([]int, 0, len(points)), ys: make([]float64, 0, len(points))}
	for i, p := range points {
		if i > 0 && p.x == points[i-1].x {
			if !o.Lenient {
				return nil, fmt.Errorf("row %d: %s: found %d again, expected each key once", p.row+1, field, p.x)
			}
			warn("row %d: %s: found %d again, the first is taken", p.row+1, field, p.x)
			continue
		}
		c.xs = append(c.xs, p.x)
		c.ys = append(c.ys, p.y)
	}
	n := len(c.xs)
	c.segs = make([]segment, n+1)
	c.segs[0] = segment{w: 1, y0: c.ys[0]}
	for i := 1; i < n; i++ {
		x0, x1, y0, y1 := c.xs[i-1], c.xs[i], c.ys[i-1], c.ys[i]
		c.segs[i] = segment{float64(x0), float64(x1 - x0), y0, y1 - y0}
	}
	// At the last key and beyond it the last two points are continued; n = 1
	// leaves the constant of segs[0].
	c.segs[n] = c.segs[n-1]
	if o.Refuse {
		c.limit = c.xs[n-1]
	}
	c.index = indexes.get(c.xs)
	return c, nil
}

// value is the float of the rules, for q >= 0.
func (c *curve) value(q int) float64 {
	return c.segs[c.index.of(q)].at(float64(q))
}

func (c *curve) status(q int) Status {
	if q > c.limit {
		return Unanswered
	}
	return axisStatus(c.measured(), q)
}

// Curve is a handle to one layer whose latency goes by one number: tokens for
// a dense layer, sequences for a per-sequence one. The zero Curve answers
// (0, false). Copies are cheap; all methods are safe for concurrent use.
type Curve struct{ c *curve }

// LatencyNS returns the latency of one call in nanoseconds, at least 1, for q
// tokens or sequences; q below 1 counts as 1. It is false for the zero Curve,
// and beyond the measured range where Options.Refuse was set.
func (h Curve) LatencyNS(q int) (int64, bool) {
	c := h.c
	if c == nil {
		return 0, false
	}
	q = max(q, 1)
	if q > c.limit {
		return 0, false
	}
	return wholeNS(c.segs[c.index.of(q)].at(float64(q))), true
}

// Explain is LatencyNS that also tells how the answer was found.
func (h Curve) Explain(q int) (int64, Answer) {
	ns, ok := h.LatencyNS(q)
	if !ok {
		return 0, Answer{}
	}
	if q < 1 {
		return ns, Answer{Status: Clamped}
	}
	a := Answer{Status: h.c.status(q)}
	if h.c.known != nil {
		a.Sigma = h.c.sigma(q)
	}
	return ns, a
}

// Range returns the smallest and the greatest measured key.
func (h Curve) Range() (lo, hi int, ok bool) {
	if h.c == nil {
		return 0, 0, false
	}
	xs := h.c.measured()
	return xs[0], xs[len(xs)-1], true
}

// indexCache shares indexes between curves that have the same keys, as the
// layers of one file have.
type indexCache struct{ all []*index }

func (c *indexCache) get(xs []int) *index {
	for _, ix := range c.all {
		if slices.Equal(ix.xs, xs) {
			return ix
		}
	}
	ix := newIndex(xs)
	c.all = append(c.all, &ix)
	return &ix
}
