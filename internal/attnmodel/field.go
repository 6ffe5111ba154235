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
	inverse features // 1 / length scale
	signal  float64  // variance
	noise   float64  // variance
	slice   float64  // variance that the nodes of one slice share
	nodes   []fieldNode
	tree    []treeNode
	left    *field  // squares of errors at nodes that were left out; nil with too few
	spread  float64 // what sigma has to be multiplied with to hold
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
	inverse := fieldInverse
	for d := range inverse {
		inverse[d] *= s.Scale
	}
	inverse[5] *= s.Unlike
	inverse[6] *= s.Unlike
	f := &field{inverse: inverse, signal: s.Signal, noise: s.Noise*s.Signal + fieldNoise, slice: s.Slice * s.Signal, nodes: make([]fieldNode, len(nodes))}
	for i, n := range nodes {
		for d := range n.at {
			n.at[d] *= inverse[d]
		}
		f.nodes[i] = n
	}
	f.build()
	return f
}

// kernel is a Matern 3/2 covariance, as a share of the signal, of a squared
// distance.
func kernel(d2 float64) float64 {
	d := math.Sqrt(3 * d2)
	return (1 + d) * math.Exp(-d)
}

func distance2(a, b *features) float64 {
	s := 0.0
	for i := range a {
		d := a[i] - b[i]
		s += d * d
	}
	return s
}

// at is the expected residual at q and its variance, noise left out.
func (f *field) at(q features) (mean, variance float64) {
	for d := range q {
		q[d] *= f.inverse[d]
	}
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
	n := near.n
	if n == 0 {
		return 0, f.signal + f.slice
	}
	const m = fieldNeighbours
	var a [m * m]float64
	var k, v, y [m]float64
	for i := range n {
		p := &f.nodes[near.index[i]]
		k[i] = f.signal * kernel(near.d2[i])
		if sameSlice(q, &p.at) {
			k[i] += f.slice
		}
		y[i] = p.y
		for j := range i {
			o := &f.nodes[near.index[j]]
			a[i*m+j] = f.signal * kernel(distance2(&p.at, &o.at))
			if sameSlice(&p.at, &o.at) {
				a[i*m+j] += f.slice
			}
		}
		a[i*m+i] = f.signal + f.slice + f.noise
	}
	// Cholesky, then the forward solves of k and y.
	for i := range n {
		row := a[i*m : i*m+i+1]
		for j := 0; j <= i; j++ {
			s := row[j]
			other := a[j*m : j*m+j+1]
			for l := range j {
				s -= row[l] * other[l]
			}
			if i == j {
				row[i] = math.Sqrt(max(s, 1e-12))
			} else {
				row[j] = s / other[j]
			}
		}
		sk, sy := k[i], y[i]
		for l := range i {
			sk -= row[l] * v[l]
			sy -= row[l] * y[l]
		}
		v[i], y[i] = sk/row[i], sy/row[i]
		mean += v[i] * y[i]
		variance += v[i] * v[i]
	}
	return mean, max(0, f.signal+f.slice-variance)
}

// sameSlice tells whether two batches have the same chunk over the same
// history.
func sameSlice(a, b *features) bool { return a[0] == b[0] && a[1] == b[1] }

// neighbours are the nodes found so far, nearest first.
type neighbours struct {
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

// treeNode is a k-d tree's: nodes first to last below it, cut along an axis.
type treeNode struct {
	first, last int32
	axis        int8
	cut         float64
	left, right int32 // 0 in a leaf
}

const leafSize = 8

func (f *field) build() {
	f.tree = f.tree[:0]
	f.split(0, len(f.nodes))
}

func (f *field) split(first, last int) int32 {
	id := int32(len(f.tree))
	f.tree = append(f.tree, treeNode{first: int32(first), last: int32(last)})
	if last-first <= leafSize {
		return id
	}
	lo, hi := f.nodes[first].at, f.nodes[first].at
	for i := first; i < last; i++ {
		for d, v := range f.nodes[i].at {
			lo[d], hi[d] = min(lo[d], v), max(hi[d], v)
		}
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
	t := &f.tree[id]
	t.axis, t.cut, t.left, t.right = int8(axis), cut, left, right
	return id
}

func (f *field) nearest(q *features, skip int, out *neighbours) {
	if len(f.nodes) > 0 {
		f.visit(0, q, int32(skip), 0, out)
	}
}

func (f *field) visit(id int32, q *features, skip int32, least float64, out *neighbours) {
	t := &f.tree[id]
	if t.left == 0 {
		for i := t.first; i < t.last; i++ {
			if i == skip {
				continue
			}
			if d2 := distance2(q, &f.nodes[i].at); d2 < out.worst() {
				out.add(i, d2)
			}
		}
		return
	}
	d := q[t.axis] - t.cut
	near, far := t.left, t.right
	if d >= 0 {
		near, far = far, near
	}
	f.visit(near, q, skip, least, out)
	// The other side is at least this far away.
	if l := max(least, d*d); l < out.worst() {
		f.visit(far, q, skip, l, out)
	}
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
const tuneSamples = 300

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
	var best *field
	var settings FieldSettings
	least := math.Inf(1)
	type distances struct{ scale, unlike float64 }
	tried := []distances{{1, wideUnlike}, {1.8, wideUnlike}}
	if manyUnlike(nodes) {
		tried = append(tried, distances{1, 1}, distances{1.8, 1})
	}
	// The same nodes are left out of all.
	left := make(map[int32]bool, tuneSamples)
	for _, i := range sampleIndices(len(nodes), tuneSamples) {
		left[nodes[i].sample] = true
	}
	ask := make([]int, 0, tuneSamples)
	near := make([]neighbours, tuneSamples)
	for _, d := range tried {
		f := newField(nodes, FieldSettings{Scale: d.scale, Unlike: d.unlike, Signal: signal})
		ask = ask[:0]
		for i := range f.nodes {
			if left[f.nodes[i].sample] {
				near[len(ask)] = neighbours{}
				f.nearest(&f.nodes[i].at, i, &near[len(ask)])
				ask = append(ask, i)
			}
		}
		// The error at the nodes that are left out.
		try := func(noise, slice float64) {
			g := *f
			g.noise, g.slice = noise*signal+fieldNoise, slice*signal
			sum := 0.0
			for k, i := range ask {
				mean, _ := g.solve(&f.nodes[i].at, &near[k])
				// Between the mean and the middle of the errors' sizes: large
				// ones count, but not alone.
				sum += math.Pow(math.Abs(mean-f.nodes[i].y), 0.8)
			}
			if sum < least {
				least, best, settings = sum, &g, FieldSettings{Scale: d.scale, Noise: noise, Signal: signal, Slice: slice, Unlike: d.unlike}
			}
		}
		for _, noise := range [...]float64{0.01, 0.1, 0.5} {
			try(noise, 0)
		}
		for _, slice := range [...]float64{0.1, 0.4} {
			try(settings.Noise, slice)
		}
	}
	best.calibrate()
	return best, settings
}

// calibrate leaves out nodes to learn how large errors are, and where.
func (f *field) calibrate() {
	ask := sampleIndices(len(f.nodes), calibrateSamples)
	if len(ask) < 8 {
		return
	}
	left := &field{nodes: make([]fieldNode, 0, len(ask))}
	for _, i := range ask {
		mean, variance := f.without(i)
		e := f.nodes[i].y - mean
		left.nodes = append(left.nodes, fieldNode{at: f.nodes[i].at, y: e * e / (variance + f.noise)})
	}
	left.build()
	f.left = left
	// The errors' distribution is not normal: two thirds of them must be
	// within one sigma.
	ratio := make([]float64, 0, len(ask))
	for i := range left.nodes {
		n := &left.nodes[i]
		if local := left.local(&n.at, i); local > 0 {
			ratio = append(ratio, math.Sqrt(n.y/local))
		}
	}
	slices.Sort(ratio)
	if len(ratio) > 0 {
		f.spread = ratio[len(ratio)*68/100]
	}
}

const calibrateSamples = 300

// local is the mean of the nearest errors.
func (f *field) local(q *features, skip int) float64 {
	var near neighbours
	f.nearest(q, skip, &near)
	sum := 0.0
	for i := range near.n {
		sum += f.nodes[near.index[i]].y
	}
	return sum / float64(max(near.n, 1))
}

// sigma is one standard error at q, where the process has the given variance:
// what nodes that were left out say, how well another sweep repeats, and, away
// from all nodes, a share of what the model leaves over.
func (f *field) sigma(q features, variance, rough float64) float64 {
	if f.left == nil {
		return math.Sqrt(variance + f.noise + 1e-3)
	}
	for d := range q {
		q[d] *= f.inverse[d]
	}
	var near neighbours
	f.nearest(&q, -1, &near)
	away := min(1, math.Sqrt(near.d2[0])/0.15)
	left := 0.95 * f.spread
	return math.Sqrt(left*left*f.left.local(&q, -1)*(variance+f.noise) + repeat*repeat + rough*rough*away*away*f.signal)
}

// repeat is how well the same shape repeats in another sweep.
const repeat = 0.0075
