package attnmodel

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// A field's answer is that of a Gaussian process on the nearest nodes, found
// and solved the plain way. Half of the queries share a slice with nodes.
func TestFieldAsDense(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var nodes []fieldNode
	batch := func() []Run { return unlike(rnd, 1+rnd.IntN(60), 16*rnd.IntN(3)) }
	for i := range 3000 {
		nodes = append(nodes, fieldNode{at: featuresOf(batch()), y: 0.02 * rnd.NormFloat64(), sample: int32(i)})
	}
	for _, s := range []FieldSettings{
		{Scale: 1, Noise: 0.1, Signal: 4e-4, Slice: 0.4, Unlike: 1},
		{Scale: 1.8, Noise: 0.01, Signal: 1e-3, Slice: 0.1, Unlike: wideUnlike},
	} {
		f := newField(nodes, s)
		shared := 0
		for i := range 200 {
			at := featuresOf(batch())
			if i%2 == 0 {
				from := nodes[rnd.IntN(len(nodes))].at
				at[0], at[1], at[2] = from[0], from[1], from[2]
			}
			mean, variance := f.at(at)
			q := f.scaled(at)
			near := make([]int, len(f.nodes))
			for i := range near {
				near[i] = i
			}
			slices.SortFunc(near, func(a, b int) int {
				return cmp.Compare(distance2(&q, &f.nodes[a].at), distance2(&q, &f.nodes[b].at))
			})
			const n = fieldNeighbours
			covariance := func(a, b *features) float64 {
				d := math.Sqrt(3 * distance2(a, b))
				v := f.signal * (1 + d) * math.Exp(-d)
				if a[0] == b[0] && a[1] == b[1] {
					v += f.slice
				}
				return v
			}
			var a [n * n]float64
			var k, w [n]float64
			for i := range n {
				p := &f.nodes[near[i]].at
				for j := range n {
					a[i*n+j] = covariance(p, &f.nodes[near[j]].at)
				}
				a[i*n+i] += f.noise
				k[i] = covariance(&q, p)
				if k[i] > f.signal {
					shared++
				}
			}
			w = k
			if !solveCholesky(a[:], w[:], n) {
				t.Fatal("not positive definite")
			}
			wantMean, wantVariance := 0.0, f.signal+f.slice
			for i := range n {
				wantMean += w[i] * f.nodes[near[i]].y
				wantVariance -= w[i] * k[i]
			}
			if math.Abs(mean-wantMean) > 1e-4 || math.Abs(variance-wantVariance) > 1e-3*f.signal {
				t.Errorf("%+v: %g, variance %g, want %g, %g", s, mean, variance, wantMean, wantVariance)
			}
		}
		if shared < 100 {
			t.Errorf("%+v: %d neighbours in the query's slice, want some hundreds", s, shared)
		}
	}
}
