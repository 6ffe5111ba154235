package attnmodel

import (
	"math"
	"slices"
)

// fieldNeighbours is how many nodes a prediction of a field goes by.
const fieldNeighbours = 20

// field interpolates what a model leaves over, the logarithm of measured over
// modelled time, between the nodes next to a batch: a Gaussian process on
// those nodes, with mean 0, so that far from all of them the model stands
// alone.
type field struct {
	inverse features // 1 / length scale, of a scale of 1
	scale   float64  // of all axes
	signal  float64  // variance
	noise   float64  // variance
	slice   float64  // variance that the nodes of one slice share
	nodes   []fieldNode
	tree    []treeNode
	left    *field  // errors at nodes that were left out; nil with too few
	spread  float64 // what sigma has to be multiplied with to hold
	apart   float64 // variance that slices which were left out whole add
}

type fieldNode struct {
	at     features // scaled by inverse
	y      float64
	sample int32
}

// FieldSettings are the constants of a field.
type FieldSettings struct {
	// Scale multiplies distances, Noise is a share of Signal, the variance of
	// the residuals.
	Scale  float64 `json:"scale"`
	Noise  float64 `json:"noise"`
	Signal float64 `json:"signal"`
	// Slice is a share of Signal: what the nodes with the same chunk and the
	// same history of it have in common, as they were measured together.
	Slice float64 `json:"slice"`
	// Unlike multiplies distances between batches whose decodes are unlike one
	// another in another way.
	Unlike float64 `json:"unlike"`
}

// fieldInverse are inverse length scales, in natural logarithms: a factor of
// two in tokens is 0.7.
var fieldInverse = features{1 / 1.5, 1 / 1.5, 1, 1 / 1.5, 1 / 1.5, 1 / 1.0, 1 / 0.5}

// newField makes a field of unscaled nodes.
func newField(nodes []fieldNode, s FieldSettings) *field {
	f := &field{inverse: fieldInverse, scale: 1, nodes: slices.Clone(nodes)}
	f.inverse[5] *= s.Unlike
	f.inverse[6] *= s.Unlike
	for i := range f.nodes {
		f.nodes[i].at = f.scaled(f.nodes[i].at)
	}
	f.build()
	f.set(s)
	return f
}

// scaled are features on the field's axes. Equal ones stay equal to the last
// bit, so that slices can be told.
func (f *field) scaled(q features) features {
	for d := range q {
		q[d] = q[d] * f.inverse[d] * f.scale
	}
	return q
}

// set takes settings over into a field of scale 1 with the same Unlike. Scaling
// all distances alike changes neither the tree nor who is next to whom.
func (f *field) set(s FieldSettings) {
	f.signal, f.noise, f.slice = s.Signal, s.Noise*s.Signal+fieldNoise, s.Slice*s.Signal
	if s.Scale == 1 {
		return
	}
	f.scale = s.Scale
	for i := range f.nodes {
		for d := range f.nodes[i].at {
			f.nodes[i].at[d] *= s.Scale
		}
	}
	for i := range f.tree {
		t := &f.tree[i]
		for d := range t.lo {
			t.lo[d] *= s.Scale
			t.hi[d] *= s.Scale
		}
	}
}

// kernel is a Matern 3/2 covariance, as a share of the signal, of a squared
// distance: (1 + d) exp(-d) with d the root of three times it, from a table.
func kernel(d2 float64) float64 {
	u := math.Sqrt(d2) * kernelPerUnit
	if !(u < kernelPoints) {
		return 0
	}
	i := int(u)
	p := &kernelTable[i]
	return p.y + (u-float64(i))*p.step
}

const (
	kernelPoints  = 768
	kernelPerUnit = 1.7320508075688772 * kernelPoints / 12
)

// kernelTable reaches as far as the covariance is worth mentioning.
var kernelTable = func() (t [kernelPoints]struct{ y, step float64 }) {
	at := func(i int) float64 {
		d := float64(i) * 12 / kernelPoints
		return (1 + d) * math.Exp(-d)
	}
	for i := range t {
		t[i].y = at(i)
		t[i].step = at(i+1) - at(i)
	}
	return t
}()

func distance2(a, b *features) float64 {
	// Written out, as this is most of what a lookup does.
	d0, d1, d2, d3 := a[0]-b[0], a[1]-b[1], a[2]-b[2], a[3]-b[3]
	d4, d5, d6 := a[4]-b[4], a[5]-b[5], a[6]-b[6]
	return (d0*d0 + d1*d1) + (d2*d2 + d3*d3) + (d4*d4 + d5*d5) + d6*d6
}

// at is the expected residual at q and its variance, noise left out.
func (f *field) at(q features) (mean, variance float64) {
	q = f.scaled(q)
	var near neighbours
	f.nearest(&q, -1, &near)
	return f.solve(&q, &near)
}

// without is at for a node, as if it were not there.
func (f *field) without(i int) (mean, variance float64) {
	var near neighbours
	f.nearest(&f.nodes[i].at, i, &near)
	return f.solve(&f.nodes[i].at, &near)
}

func (f *field) solve(q *features, near *neighbours) (mean, variance float64) {
	var s system
	s.set(f.nodes, q, near)
	s.share(1)
	return s.solve(f.signal, f.slice, f.noise)
}

// system is what a Gaussian process on the nodes next to a batch solves: the
// squares of the nodes' distances to one another and, in the last row, to the
// batch, and later what they share.
type system struct {
	n  int
	y  [fieldNeighbours]float64
	d2 [fieldNeighbours + 1][fieldNeighbours]float64
	// slice tells which nodes have the same chunk over the same history, bit
	// by bit.
	slice [fieldNeighbours + 1]uint32
}

func (s *system) set(nodes []fieldNode, q *features, near *neighbours) {
	s.n = near.n
	var at [fieldNeighbours]*features
	for i := range near.n {
		p := &nodes[near.index[i]]
		at[i], s.y[i] = &p.at, p.y
		row := &s.d2[i]
		same := uint32(0)
		for j, o := range at[:i] {
			row[j] = distance2(&p.at, o)
			if sameSlice(&p.at, o) {
				same |= 1 << j
			}
		}
		s.slice[i] = same
		if sameSlice(q, &p.at) {
			s.slice[fieldNeighbours] |= 1 << i
		}
	}
	s.d2[fieldNeighbours] = near.d2
}

// share makes distances the shares of the signal that nodes have in common.
// scale2 multiplies squared distances.
func (s *system) share(scale2 float64) {
	for i := range s.n {
		for j := range i {
			s.d2[i][j] = kernel(s.d2[i][j] * scale2)
		}
	}
	last := &s.d2[fieldNeighbours]
	for j := range s.n {
		last[j] = kernel(last[j] * scale2)
	}
}

// solve gives the expected residual of the batch and its variance, noise left
// out. share must have been called.
func (s *system) solve(signal, slice, noise float64) (mean, variance float64) {
	const m = fieldNeighbours
	n := s.n
	if n == 0 {
		return 0, signal + slice
	}
	// The lower triangle; below it, the batch's covariances and the residuals,
	// which the elimination solves for on its way.
	var a [m + 2][m]float64
	fill := func(row *[m]float64, share *[m]float64, count int, same uint32) {
		for j := range count {
			row[j] = signal * share[j]
			if same>>j&1 != 0 {
				row[j] += slice
			}
		}
	}
	for i := range n {
		fill(&a[i], &s.d2[i], i, s.slice[i])
		a[i][i] = signal + slice + noise
	}
	fill(&a[n], &s.d2[m], n, s.slice[m])
	a[n+1] = s.y
	var column [m + 2]float64
	for k := range n {
		inverse := 1 / math.Sqrt(max(a[k][k], 1e-12))
		for i := k + 1; i < n+2; i++ {
			column[i] = a[i][k] * inverse
		}
		mean += column[n] * column[n+1]
		variance += column[n] * column[n]
		for i := k + 1; i < n+2; i++ {
			row, c := a[i][k+1:min(i+1, n)], column[i]
			for j, v := range column[k+1 : k+1+len(row)] {
				row[j] -= c * v
			}
		}
	}
	return mean, max(0, signal+slice-variance)
}

// sameSlice tells whether two batches have the same chunk over the same
// history.
func sameSlice(a, b *features) bool { return a[0] == b[0] && a[1] == b[1] }

// neighbours are the nodes found so far, nearest first.
type neighbours struct {
	leave func(at *features) bool // nodes that are not to be found; nil is none
	n     int
	index [fieldNeighbours]int32
	d2    [fieldNeighbours]float64
}

func (b *neighbours) add(i int32, d2 float64) {
	at := b.n
	if at == fieldNeighbours {
		at--
	} else {
		b.n++
	}
	for at > 0 && b.d2[at-1] > d2 {
		b.index[at], b.d2[at] = b.index[at-1], b.d2[at-1]
		at--
	}
	b.index[at], b.d2[at] = i, d2
}

func (b *neighbours) worst() float64 {
	if b.n < fieldNeighbours {
		return math.Inf(1)
	}
	return b.d2[b.n-1]
}

// treeNode is a k-d tree's: nodes first to last lie in its box.
type treeNode struct {
	lo, hi      features
	first, last int32
	left, right int32 // 0 in a leaf
}

const leafSize = 8

func (f *field) build() {
	f.tree = make([]treeNode, 0, len(f.nodes)/2+1)
	f.split(0, len(f.nodes))
}

func (f *field) split(first, last int) int32 {
	id := int32(len(f.tree))
	if first == last {
		return id
	}
	lo, hi := f.nodes[first].at, f.nodes[first].at
	for i := first + 1; i < last; i++ {
		for d, v := range f.nodes[i].at {
			if v < lo[d] {
				lo[d] = v
			}
			if v > hi[d] {
				hi[d] = v
			}
		}
	}
	f.tree = append(f.tree, treeNode{lo: lo, hi: hi, first: int32(first), last: int32(last)})
	if last-first <= leafSize {
		return id
	}
	axis := 0
	for d := range lo {
		if hi[d]-lo[d] > hi[axis]-lo[axis] {
			axis = d
		}
	}
	if hi[axis] == lo[axis] {
		return id
	}
	// A cut halfway through the range keeps equal values on one side.
	cut := (lo[axis] + hi[axis]) / 2
	mid := first
	for i := first; i < last; i++ {
		if f.nodes[i].at[axis] < cut {
			f.nodes[i], f.nodes[mid] = f.nodes[mid], f.nodes[i]
			mid++
		}
	}
	if mid == first || mid == last {
		return id
	}
	left := f.split(first, mid)
	right := f.split(mid, last)
	f.tree[id].left, f.tree[id].right = left, right
	return id
}

func (f *field) nearest(q *features, skip int, out *neighbours) {
	if len(f.nodes) > 0 {
		f.visit(&f.tree[0], q, int32(skip), out)
	}
}

func (f *field) visit(t *treeNode, q *features, skip int32, out *neighbours) {
	if t.left == 0 {
		for i := t.first; i < t.last; i++ {
			if i == skip || out.leave != nil && out.leave(&f.nodes[i].at) {
				continue
			}
			if d2 := distance2(q, &f.nodes[i].at); d2 < out.worst() {
				out.add(i, d2)
			}
		}
		return
	}
	near, far := &f.tree[t.left], &f.tree[t.right]
	a, b := near.distance2(q), far.distance2(q)
	if b < a {
		near, far, a, b = far, near, b, a
	}
	if a < out.worst() {
		f.visit(near, q, skip, out)
	}
	if b < out.worst() {
		f.visit(far, q, skip, out)
	}
}

// distance2 is the square of the distance to the box.
func (t *treeNode) distance2(q *features) float64 {
	s := 0.0
	for d, v := range q {
		// How far v is from what it would be inside.
		x := v - min(max(v, t.lo[d]), t.hi[d])
		s += x * x
	}
	return s
}

// sampleIndices are n places spread over a slice of the given length.
func sampleIndices(length, n int) []int {
	all := make([]int, length)
	for i := range all {
		all[i] = i
	}
	return spread(all, n)
}

// fieldNoise is the least variance of a node: of a measurement, and of what
// round numbers have that numbers beside them do not.
const fieldNoise = 1e-4

// tuneSamples is how many nodes are left out for each setting that is tried.
const tuneSamples = 200

// wideUnlike is Unlike where batches with alike decodes have to do for others.
const wideUnlike = 0.4

// manyUnlike tells whether more than a few nodes have unlike decodes: with
// fewer, alike ones have to do for them.
func manyUnlike(nodes []fieldNode) bool {
	unlike := 0
	for i := range nodes {
		if nodes[i].at[6] > 0 {
			unlike++
		}
	}
	return unlike*50 >= len(nodes)
}

// tuneField chooses the settings by leaving out nodes.
func tuneField(nodes []fieldNode) (*field, FieldSettings) {
	mean2 := 0.0
	for _, n := range nodes {
		mean2 += min(n.y*n.y, 0.25)
	}
	signal := max(mean2/float64(len(nodes)), 1e-6)
	unlikes := []float64{wideUnlike}
	if manyUnlike(nodes) {
		unlikes = append(unlikes, 1)
	}
	// The same nodes are left out of all.
	left := make(map[int32]bool, tuneSamples)
	for _, i := range sampleIndices(len(nodes), tuneSamples) {
		left[nodes[i].sample] = true
	}
	var best *field
	settings := FieldSettings{Scale: 1, Signal: signal}
	least := math.Inf(1)
	systems, want := make([]system, 0, tuneSamples), make([]float64, 0, tuneSamples)
	shared := make([]system, 0, tuneSamples)
	for _, unlike := range unlikes {
		f := newField(nodes, FieldSettings{Scale: 1, Unlike: unlike, Signal: signal})
		systems, want = systems[:0], want[:0]
		for i := range f.nodes {
			if n := &f.nodes[i]; left[n.sample] {
				var near neighbours
				f.nearest(&n.at, i, &near)
				systems, want = append(systems, system{}), append(want, n.y)
				systems[len(systems)-1].set(f.nodes, &n.at, &near)
			}
		}
		for _, scale := range [...]float64{1, 1.8} {
			shared = append(shared[:0], systems...)
			for k := range shared {
				shared[k].share(scale * scale)
			}
			// The error at the nodes that are left out.
			try := func(noise, slice float64) {
				sum := 0.0
				for k := range shared {
					mean, _ := shared[k].solve(signal, slice*signal, noise*signal+fieldNoise)
					// Between the mean and the middle of the errors' sizes:
					// large ones count, but not alone.
					sum += math.Pow(math.Abs(mean-want[k]), 0.8)
				}
				if sum < least || best == nil {
					least, best, settings = sum, f, FieldSettings{Scale: scale, Noise: noise, Signal: signal, Slice: slice, Unlike: unlike}
				}
			}
			for _, noise := range [...]float64{0.01, 0.1, 0.5} {
				try(noise, 0)
			}
			for _, slice := range [...]float64{0.1, 0.4} {
				try(settings.Noise, slice)
			}
		}
	}
	best.set(settings)
	best.calibrate()
	return best, settings
}

// calibrate leaves out nodes to learn how large errors are, and where: in turn
// a node alone, with its slice, and with all of as many decodes, as batches
// that are asked for may be away from all nodes along any of these.
func (f *field) calibrate() {
	ask := sampleIndices(len(f.nodes), calibrateSamples)
	if len(ask) < 8 {
		return
	}
	left := &field{nodes: make([]fieldNode, 0, len(ask))}
	var alone, whole []float64 // errors of the same nodes, left out alone and with their slice
	for k, i := range ask {
		n := &f.nodes[i]
		var near neighbours
		f.nearest(&n.at, i, &near)
		out := fieldNode{at: n.at}
		if f.gridded(&n.at, &near) {
			out.sample = onGrid
		}
		mean, variance := f.solve(&n.at, &near)
		if k%3 > 0 {
			far := neighbours{leave: func(at *features) bool { return at[3] == n.at[3] }}
			if k%3 == 1 {
				far.leave = func(at *features) bool { return sameSlice(at, &n.at) }
			}
			if f.nearest(&n.at, i, &far); far.n > 0 {
				e := n.y - mean
				mean, variance = f.solve(&n.at, &far)
				if k%3 == 1 {
					alone, whole = append(alone, math.Abs(e)), append(whole, math.Abs(n.y-mean))
				}
			}
		}
		e := n.y - mean
		out.y = e * e / (variance + f.noise)
		left.nodes = append(left.nodes, out)
	}
	left.build()
	f.left = left
	// The errors' distribution is not normal: two thirds of them must be
	// within one sigma.
	ratio := make([]float64, 0, len(ask))
	for i := range left.nodes {
		n := &left.nodes[i]
		if local, _ := left.local(&n.at, i); local > 0 {
			ratio = append(ratio, math.Sqrt(n.y/local))
		}
	}
	if len(ratio) > 0 {
		f.spread = within(ratio)
	}
	if len(whole) >= leastApart {
		a, b := within(alone), within(whole)
		f.apart = max(0, b*b-a*a)
	}
}

const (
	calibrateSamples = 300
	leastApart       = 20
	onGrid           = 1 // sample of a node that was left out and has others beside it
)

// within is what two thirds of the errors are within. It sorts them.
func within(errs []float64) float64 {
	slices.Sort(errs)
	return errs[len(errs)*68/100]
}

// gridded tells whether one of the nodes beside a batch differs from it along
// one axis only, as those of a grid do.
func (f *field) gridded(q *features, near *neighbours) bool {
	for _, i := range near.index[:near.n] {
		if at := &f.nodes[i].at; axesApart(q, at) <= 1 {
			return true
		}
	}
	return false
}

// axesApart counts the axes along which two batches differ: tokens, history and
// number of chunks, number of decodes and their lengths.
func axesApart(a, b *features) int {
	n := 0
	for d := range 4 {
		if a[d] != b[d] {
			n++
		}
	}
	if a[4] != b[4] || a[5] != b[5] || a[6] != b[6] {
		n++
	}
	return n
}

// local is the mean of the nearest errors, and the share of them at nodes of a
// grid.
func (f *field) local(q *features, skip int) (mean, grid float64) {
	var near neighbours
	f.nearest(q, skip, &near)
	for _, i := range near.index[:near.n] {
		mean += f.nodes[i].y
		grid += float64(f.nodes[i].sample)
	}
	n := float64(max(near.n, 1))
	return mean / n, grid / n
}

// sigma is one standard error at q, where the process has the given variance:
// what nodes that were left out say, how well another sweep repeats and how far
// slices of this one are apart. Where only the nodes of a grid say it and q is
// not of their grid, a share of what the model leaves over of them is added,
// which those left out do not show.
func (f *field) sigma(q features, variance, rough float64) float64 {
	if f.left == nil {
		return math.Sqrt(variance + f.noise + 1e-3)
	}
	q = f.scaled(q)
	var near neighbours
	f.nearest(&q, -1, &near)
	local, grid := f.left.local(&q, -1)
	left := leftShare * f.spread
	square := left*left*local*(variance+f.noise) + repeat*repeat + apartShare*f.apart
	if !f.gridded(&q, &near) {
		away := min(1, math.Sqrt(near.d2[0])/0.15)
		over := 0.0
		for _, i := range near.index[:near.n] {
			over += f.nodes[i].y * f.nodes[i].y
		}
		square += rough * rough * away * away * grid * over / float64(near.n)
	}
	return math.Sqrt(square)
}

const (
	// leftShare of an error at a node that is left out is what there is between
	// nodes that are all there.
	leftShare = 0.8
	// repeat is how well the same shape repeats in another sweep at least, and
	// apartShare times the variance of slices what another sweep may have.
	repeat     = 0.006
	apartShare = 2
)
