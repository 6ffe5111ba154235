package traceloader

import (
	"math"
	"slices"
)

// Bounds of what lies beyond the measured range.
const (
	gemmTile  = 128 // tokens
	tailTiles = 64
)

// accurateCurve is a curve by our rules. A measured count is what was
// measured. Between two counts, a slow kernel at one of them must not spoil
// what lies beside it: libraries choose kernels by the exact count, so lines
// are drawn between the lesser of each count and the next, and leave out points
// that cannot be true. Beyond the range time goes on as it went over the upper
// half, one tile after another.
func accurateCurve(c *curve) *curve {
	out := *c
	out.known = c.xs
	if len(c.xs) < 3 {
		return &out
	}
	base, failed := soundPoints(c.xs, c.ys)
	slope := base.tileSlope()
	level := base.tailLevel(slope)
	last, lastNS := c.xs[len(c.xs)-1], c.ys[len(c.ys)-1]
	if end := len(base.xs) - 1; base.xs[end] != last {
		// Up to the last count the rest goes on as it does beyond it.
		tail := base.ys[end] + slope*(tiles(last)-tiles(base.xs[end]))
		base.xs, base.ys = append(base.xs, last), append(base.ys, tail)
		lastNS, level = tail, level+slope*(tiles(last)-tiles(base.xs[end]))
	}
	base.lower()
	out.base, out.failed = base, failed

	var xs []int
	var ys []float64
	for i, x := range c.xs {
		xs, ys = append(xs, x), append(ys, c.ys[i])
		if i+1 == len(c.xs) {
			break
		}
		// The line between them, from the count after this one to that before
		// the next.
		for _, at := range [...]int{x + 1, c.xs[i+1] - 1} {
			if at > xs[len(xs)-1] && at < c.xs[i+1] {
				xs, ys = append(xs, at), append(ys, base.at(at))
			}
		}
	}
	for k := range tailTiles {
		from := (last+gemmTile-1)/gemmTile*gemmTile + k*gemmTile + 1
		y := max(level+slope*float64(k+1), lastNS)
		if k == 0 && from > last+1 && lastNS != c.ys[len(c.ys)-1] {
			// Nothing beside it follows a last point that cannot be true.
			xs, ys = append(xs, last+1), append(ys, max(level, lastNS))
		}
		xs, ys = append(xs, from, from+gemmTile-1), append(ys, y, y)
	}
	// The last segment goes on for ever: by the slope, whatever the plateau.
	x, y := xs[len(xs)-1], ys[len(ys)-1]
	xs, ys = append(xs, x+gemmTile), append(ys, y+slope)
	out.xs, out.ys = xs, ys
	out.segs = make([]segment, len(xs)+1)
	out.segs[0] = segment{w: 1, y0: ys[0]}
	if base.xs[0] != c.xs[0] {
		out.segs[0].y0 = base.ys[0]
	}
	for i := 1; i < len(xs); i++ {
		out.segs[i] = segment{float64(xs[i-1]), float64(xs[i] - xs[i-1]), ys[i-1], ys[i] - ys[i-1]}
	}
	out.segs[len(xs)] = out.segs[len(xs)-1]
	ix := newIndex(xs)
	out.index = &ix
	return &out
}

// knowErrors makes a curve answer as it does with sigmas.
func (c *curve) knowErrors() { c.known, c.base = c.xs, polyline{c.xs, c.ys} }

// polyline are points, ascending, with straight lines between them.
type polyline struct {
	xs []int
	ys []float64
}

// at is the line at x, level before the first point; x is not beyond the last.
func (p *polyline) at(x int) float64 {
	i, found := slices.BinarySearch(p.xs, x)
	if found {
		return p.ys[i]
	}
	if i == 0 {
		return p.ys[0]
	}
	x0, x1 := p.xs[i-1], p.xs[i]
	return lerp(p.ys[i-1], p.ys[i], float64(x-x0)/float64(x1-x0))
}

// A point that is by such a factor below several points of less work, or above
// several of more, and as far from its neighbour too, is a failed measurement;
// the first and the last one, which have neighbours on one side only, where it
// is by endFactor beyond all of several.
const (
	unsoundFactor     = 2
	endFactor         = 3
	unsoundNeighbours = 4
)

// soundPoints leaves out points that cannot be true, never two neighbours:
// where two agree, it is the layer that is so. Of three or more points one stays.
func soundPoints(xs []int, ys []float64) (p polyline, failed []int) {
	p = polyline{make([]int, 0, len(xs)+1), make([]float64, 0, len(ys)+1)}
	for i, y := range ys {
		beside := len(failed) > 0 && failed[len(failed)-1] == xs[max(i-1, 0)]
		if !beside && unsound(xs, ys, i, y) {
			failed = append(failed, xs[i])
			continue
		}
		p.xs, p.ys = append(p.xs, xs[i]), append(p.ys, y)
	}
	return p, failed
}

func unsound(xs []int, ys []float64, i int, y float64) bool {
	before, after := ys[max(0, i-unsoundNeighbours):i], ys[i+1:min(len(ys), i+1+unsoundNeighbours)]
	switch {
	case len(after) == 0:
		if len(before) < 2 {
			return false
		}
		// No layer takes longer by more than it has more to do.
		more := float64(xs[i]) / float64(max(xs[i-1], 1))
		return y*endFactor < slices.Min(before) || y > unsoundFactor*more*before[len(before)-1]
	case len(before) == 0:
		return len(after) >= 2 && y > endFactor*slices.Max(after)
	}
	low := y*unsoundFactor < middle(before) && y*unsoundFactor < after[0]
	high := y > unsoundFactor*middle(after) && y > unsoundFactor*before[len(before)-1]
	return low || high
}

func middle(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// lower takes each point down to the next one's height: an engine could pad to
// it. To look further would take the least of much noise.
func (p *polyline) lower() {
	for i := range p.ys[1:] {
		p.ys[i] = min(p.ys[i], p.ys[i+1])
	}
}

func tiles(x int) float64 { return float64((x + gemmTile - 1) / gemmTile) }

// upper are the points from half the last x on, at least two where there are
// two.
func (p *polyline) upper() polyline {
	first, _ := slices.BinarySearch(p.xs, p.xs[len(p.xs)-1]/2)
	first = max(min(first, len(p.xs)-2), 0)
	return polyline{p.xs[first:], p.ys[first:]}
}

// tileSlope is the median of the slopes, a tile, between points of the upper
// half that lie far apart; at least 0.
func (p *polyline) tileSlope() float64 {
	u := p.upper()
	n := len(u.xs)
	width := float64(u.xs[n-1]-u.xs[0]) / gemmTile
	var slopes []float64
	for i := range n {
		for j := i + 1; j < n; j++ {
			if d := tiles(u.xs[j]) - tiles(u.xs[i]); d > 0 && d >= width/2 {
				slopes = append(slopes, (u.ys[j]-u.ys[i])/d)
			}
		}
	}
	if len(slopes) == 0 {
		if width > 0 {
			return max(0, (u.ys[n-1]-u.ys[0])/width)
		}
		return 0
	}
	slices.Sort(slopes)
	return max(0, slopes[len(slopes)/2])
}

// tailLevel is the height at the last tile: the median of where the points of
// the upper half, carried along the slope, arrive.
func (p *polyline) tailLevel(slope float64) float64 {
	u := p.upper()
	last := u.xs[len(u.xs)-1]
	levels := make([]float64, len(u.xs))
	for i, x := range u.xs {
		levels[i] = u.ys[i] + slope*(tiles(last)-tiles(x))
	}
	slices.Sort(levels)
	return levels[len(levels)/2]
}

// sigma is one standard error of the answer at q, relative: how well a
// measurement repeats, and how far measured points in the neighbourhood lie
// from lines drawn without them.
func (c *curve) sigma(q int) float64 {
	known := c.known
	if len(known) < 3 {
		return fewSigma
	}
	first, last := known[0], known[len(known)-1]
	repeat := repeatSigma(c.value(q) / 1000)
	at, found := slices.BinarySearch(known, q)
	// beside is added where a point beside q is not believed.
	beside := 0.0
	for _, x := range known[max(at-1, 0):min(at+1, len(known))] {
		if c.unbelieved(x) > 0 {
			beside = fewSigma
		}
	}
	switch {
	case found:
		// What was measured, by as much as it cannot be true.
		return max(repeat, c.unbelieved(q))
	case q > last:
		// Errors grow with the distance.
		return edgeSigma + beside + farSigma(q, last)
	case q < first:
		return repeat + beside + farSigma(first, max(q, 1))
	}
	b := &c.base
	near, _ := slices.BinarySearch(b.xs, known[at])
	var errs []float64
	for i := max(near-8, 1); i < min(near+8, len(b.xs)-1); i++ {
		line := lerp(b.ys[i-1], b.ys[i+1], float64(b.xs[i]-b.xs[i-1])/float64(b.xs[i+1]-b.xs[i-1]))
		errs = append(errs, math.Abs(math.Log(c.value(b.xs[i])/line)))
	}
	if len(errs) == 0 {
		return max(repeat, edgeSigma)
	}
	slices.Sort(errs)
	return math.Hypot(repeat, errs[(len(errs)-1)*68/100]) + beside
}

// unbelieved is how far a measured point lies from the line that leaves it out,
// relative; 0 for all that are believed.
func (c *curve) unbelieved(x int) float64 {
	if _, found := slices.BinarySearch(c.failed, x); found {
		return math.Abs(math.Log(c.value(x) / c.base.at(x)))
	}
	return 0
}

const (
	fewSigma  = 0.1  // with fewer than three points
	edgeSigma = 0.05 // just beyond a range
)

// farSigma grows by 5% with each doubling beyond a range.
func farSigma(q, end int) float64 {
	return 0.05 * max(0, math.Log2(float64(q)/float64(max(end, 1))))
}

// repeatSigma is how well a measured time repeats in another boot, relative:
// short kernels do so worst. From layers of 8 to 700 us on H100 and H200.
func repeatSigma(us float64) float64 { return leastSigma + 0.05/math.Sqrt(max(us, 1)) }

// leastSigma is that of a long kernel.
const leastSigma = 0.006
