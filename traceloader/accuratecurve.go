package traceloader

import (
	"math"
	"slices"
)

// Bounds of what is spelt out, token by token.
const (
	maxSpeltOut = 1 << 14
	gemmTile    = 128 // tokens
	tailTiles   = 64  // beyond the range
)

// accurateCurve is a curve by our rules. A measured count is what was
// measured. Between two counts, a slow kernel at one of them must not spoil
// what lies beside it: libraries choose kernels by the exact count, so lines
// are drawn along the lower envelope, the least of what is measured from here
// on. Beyond the range time goes on as it went over the upper half, one tile
// after another.
func accurateCurve(c *curve) *curve {
	n := len(c.xs)
	out := *c
	out.known = c.xs
	if n < 3 || c.xs[n-1] > maxSpeltOut {
		return &out
	}
	envelope := slices.Clone(c.ys)
	for i := n - 2; i >= 0; i-- {
		envelope[i] = min(envelope[i], envelope[i+1])
	}
	var xs []int
	var ys []float64
	for i := range n {
		xs, ys = append(xs, c.xs[i]), append(ys, c.ys[i])
		if i+1 == n {
			break
		}
		x0, x1 := c.xs[i], c.xs[i+1]
		for x := x0 + 1; x < x1; x++ {
			t := float64(x-x0) / float64(x1-x0)
			xs, ys = append(xs, x), append(ys, lerp(envelope[i], envelope[i+1], t))
		}
	}
	last := c.xs[n-1]
	slope := tileSlope(c)
	level := tailLevel(c, slope)
	for k := range tailTiles {
		from := (last+gemmTile-1)/gemmTile*gemmTile + k*gemmTile + 1
		y := max(level+slope*float64(k+1), c.ys[n-1])
		xs, ys = append(xs, from, from+gemmTile-1), append(ys, y, y)
	}
	// The last segment goes on for ever: by the slope, whatever the plateau.
	x, y := xs[len(xs)-1], ys[len(ys)-1]
	xs, ys = append(xs, x+gemmTile), append(ys, y+slope)
	out.xs, out.ys = xs, ys
	out.segs = make([]segment, len(xs)+1)
	out.segs[0] = segment{w: 1, y0: ys[0]}
	for i := 1; i < len(xs); i++ {
		out.segs[i] = segment{float64(xs[i-1]), float64(xs[i] - xs[i-1]), ys[i-1], ys[i] - ys[i-1]}
	}
	out.segs[len(xs)] = out.segs[len(xs)-1]
	ix := newIndex(xs)
	out.index = &ix
	return &out
}

func tiles(x int) float64 { return float64((x + gemmTile - 1) / gemmTile) }

// tileSlope is the median of the slopes, a tile, between points of the upper
// half that lie far apart; at least 0.
func tileSlope(c *curve) float64 {
	n := len(c.xs)
	half := c.xs[n-1] / 2
	first, _ := slices.BinarySearch(c.xs, half)
	first = min(first, n-2)
	far := max(float64(c.xs[n-1]-c.xs[first])/gemmTile/2, 1e-9)
	var slopes []float64
	for i := first; i < n; i++ {
		for j := i + 1; j < n; j++ {
			if d := tiles(c.xs[j]) - tiles(c.xs[i]); d > 0 && d >= far {
				slopes = append(slopes, (c.ys[j]-c.ys[i])/d)
			}
		}
	}
	if len(slopes) == 0 {
		if d := float64(c.xs[n-1]-c.xs[first]) / gemmTile; d > 0 {
			return max(0, (c.ys[n-1]-c.ys[first])/d)
		}
		return 0
	}
	slices.Sort(slopes)
	return max(0, slopes[len(slopes)/2])
}

// tailLevel is the height at the last tile: the median of where the points of
// the upper half, carried along the slope, arrive.
func tailLevel(c *curve, slope float64) float64 {
	n := len(c.xs)
	first, _ := slices.BinarySearch(c.xs, c.xs[n-1]/2)
	var levels []float64
	for i := min(first, n-1); i < n; i++ {
		levels = append(levels, c.ys[i]+slope*(tiles(c.xs[n-1])-tiles(c.xs[i])))
	}
	slices.Sort(levels)
	return levels[len(levels)/2]
}

// sigma is one standard error of the answer at q, relative: from how far
// measured points lie from lines drawn without them, in the neighbourhood.
func (c *curve) sigma(q int) float64 {
	known := c.known
	if len(known) < 3 {
		return 0.1
	}
	at, found := slices.BinarySearch(known, q)
	if found {
		return measuredSigma
	}
	if q > known[len(known)-1] {
		// Errors grow with the distance.
		return 0.05 + 0.05*math.Log2(float64(q)/float64(known[len(known)-1]))
	}
	var errs []float64
	for i := max(at-8, 1); i < min(at+8, len(known)-1); i++ {
		x0, x, x1 := known[i-1], known[i], known[i+1]
		y := c.measuredAt(x)
		line := lerp(c.measuredAt(x0), c.measuredAt(x1), float64(x-x0)/float64(x1-x0))
		errs = append(errs, math.Abs(math.Log(y/line)))
	}
	if len(errs) == 0 {
		return 0.05
	}
	slices.Sort(errs)
	return max(measuredSigma, errs[(len(errs)-1)*68/100])
}

// measuredSigma is how well a measured point repeats in another run.
const measuredSigma = 0.01

func (c *curve) measuredAt(x int) float64 {
	i, _ := slices.BinarySearch(c.xs, x)
	return c.ys[i]
}
