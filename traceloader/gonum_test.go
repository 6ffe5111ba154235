package traceloader

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/interp"
)

// TestGonum holds curves against gonum's piecewise linear interpolation, which
// agrees to the rounding of one multiplication. The same integers come out
// where the distances of keys are powers of two, as in today's sweeps, but not
// in general; that is why curves do not use it.
func TestGonum(t *testing.T) {
	compare := func(c *curve) (queries, differ int) {
		xs := make([]float64, len(c.xs))
		for j, x := range c.xs {
			xs[j] = float64(x)
		}
		var p interp.PiecewiseLinear
		if err := p.Fit(xs, c.ys); err != nil {
			t.Fatal(err)
		}
		for q := c.xs[0]; q <= c.xs[len(c.xs)-1]; q++ {
			ours, theirs := c.value(q), p.Predict(float64(q))
			if math.Abs(ours-theirs) > 1e-12*ours {
				t.Fatalf("%d on %v: got %v, gonum %v", q, c.xs, ours, theirs)
			}
			queries++
			if wholeNS(ours) != wholeNS(theirs) {
				differ++
			}
		}
		return queries, differ
	}
	queries, differ := 0, 0
	for w := 3; w < 200; w++ {
		points := []point{{x: 1, y: 1}, {x: 1 + w, y: float64(1 + 7*w/3)}, {x: 1 + 2*w, y: 3}}
		c, err := newCurve(points, "tokens", &Options{}, &indexCache{}, t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		n, d := compare(c)
		queries, differ = queries+n, differ+d
	}
	t.Logf("%d queries on odd grids, %d of them 1 ns apart", queries, differ)
	if differ == 0 {
		t.Error("found no difference: curves could use gonum's predictor")
	}
	t.Run("measured", func(t *testing.T) {
		table, err := New(referenceBundle(t, llama), Options{})
		if err != nil {
			t.Fatal(err)
		}
		queries, differ := 0, 0
		for i := range table.tps {
			for _, c := range table.tps[i].dense {
				n, d := compare(c)
				queries, differ = queries+n, differ+d
			}
		}
		t.Logf("%d queries, %d of them 1 ns apart", queries, differ)
	})
}

func BenchmarkGonum(b *testing.B) {
	t, _ := benchTable(b, llama)
	h, _ := t.Dense(1, "qkv_proj")
	xs := make([]float64, len(h.c.xs))
	for j, x := range h.c.xs {
		xs[j] = float64(x)
	}
	var p interp.PiecewiseLinear
	if err := p.Fit(xs, h.c.ys); err != nil {
		b.Fatal(err)
	}
	queries := benchQueries()
	i := 0
	for b.Loop() {
		sink += int64(p.Predict(float64(queries[i&(benchSize-1)].c[0])))
		i++
	}
}
