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

// Where slices that were measured together are apart from one another, another
// sweep may be too, and the standard error says so; where they agree, it is
// small.
func TestFieldSlicesApart(t *testing.T) {
	for _, test := range []struct{ apart, least, most float64 }{{0, 0, 0.004}, {0.02, 0.01, 0.03}} {
		rnd := rand.New(rand.NewPCG(3, 5))
		const own = 0.003 // what a node is off by itself
		sweep := func() func(pc, kp int) float64 {
			offsets := map[[2]int]float64{}
			return func(pc, kp int) float64 {
				k := [2]int{pc, kp}
				if _, ok := offsets[k]; !ok {
					offsets[k] = test.apart * rnd.NormFloat64()
				}
				return offsets[k] + own*rnd.NormFloat64()
			}
		}
		y := sweep()
		var nodes []fieldNode
		for _, pc := range []int{16, 32, 64, 128, 256, 512, 1024, 2048} {
			for _, kp := range []int{0, 512, 1024, 2048, 4096, 8192} {
				for _, n := range []int{1, 4, 16, 64} {
					for _, kd := range []int{64, 512, 4096, 16384} {
						nodes = append(nodes, fieldNode{at: featuresOf(GridRuns(nil, pc, kp, n, kd, true)), y: y(pc, kp), sample: int32(len(nodes))})
					}
				}
			}
		}
		f, _ := tuneField(nodes)
		if apart := math.Sqrt(f.apart); !(apart >= test.least && apart <= test.most) {
			t.Errorf("slices %g apart: found %.4f, want %g to %g", test.apart, apart, test.least, test.most)
		}
		other := sweep()
		within, all := 0, 0
		for range 500 {
			pc, kp := 16<<rnd.IntN(8), 512<<rnd.IntN(5)
			q := featuresOf(GridRuns(nil, pc, kp, 1+rnd.IntN(64), 64+rnd.IntN(16000), true))
			mean, variance := f.at(q)
			all++
			if math.Abs(other(pc, kp)-mean) <= f.sigma(q, variance, 0) {
				within++
			}
		}
		if share := float64(within) / float64(all); share < 0.6 || test.apart > 0 && share > 0.9 {
			t.Errorf("slices %g apart: %.2f of another sweep within one sigma, want about 0.68", test.apart, share)
		}
	}
}

// What nodes do not show counts away from their grid, and there as far as the
// nodes beside are of one.
func TestFieldOffTheGrid(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	var grid, batches []fieldNode
	add := func(nodes []fieldNode, pc, kp, n, kd int) []fieldNode {
		return append(nodes, fieldNode{at: featuresOf(GridRuns(nil, pc, kp, n, kd, true)), y: 0.01 * rnd.NormFloat64(), sample: int32(len(nodes))})
	}
	for _, pc := range []int{16, 64, 256, 1024} {
		for _, kp := range []int{0, 512, 4096} {
			for _, n := range []int{1, 16, 64} {
				for _, kd := range []int{64, 512, 4096} {
					grid = add(grid, pc, kp, n, kd)
				}
			}
		}
	}
	for range len(grid) {
		batches = add(batches, 16+rnd.IntN(2000), rnd.IntN(8000), 1+rnd.IntN(64), 1+rnd.IntN(8000))
	}
	ratio := func(nodes []fieldNode, pc, kp int) float64 {
		f, _ := tuneField(nodes)
		q := featuresOf(GridRuns(nil, pc, kp, 16, 1000, true))
		_, variance := f.at(q)
		return f.sigma(q, variance, 1) / f.sigma(q, variance, 0)
	}
	if r := ratio(grid, 256, 512); r != 1 {
		t.Errorf("of the grid: %.3f times the standard error, want 1", r)
	}
	if r := ratio(grid, 300, 700); r < 1.05 {
		t.Errorf("off the grid: %.3f times the standard error, want more", r)
	}
	if r := ratio(batches, 300, 700); r != 1 {
		t.Errorf("among batches: %.3f times the standard error, want 1", r)
	}
}
