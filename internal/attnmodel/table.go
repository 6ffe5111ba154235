package attnmodel

import "math"

// maxAxes is the most axes that a table has.
const maxAxes = 4

// table is a full grid of values, multilinear in log(x + offset), clamped at
// its ends.
type table struct {
	axes   []tableAxis
	values []float32
}

type tableAxis struct {
	x      []float64
	u      []float64 // log(x + offset)
	per    []float64 // 1 / (u[i+1] - u[i])
	offset float64
	stride int
	cell   []uint8 // the point at or below each whole number; nil: searched
}

// maxCells bounds the memory of one axis' direct table.
const maxCells = 1 << 16

func newTable(axes [][]int, offsets []float64, workers int, value func([]int) float32) table {
	t := table{axes: make([]tableAxis, len(axes))}
	size := 1
	for i := len(axes) - 1; i >= 0; i-- {
		a := tableAxis{offset: offsets[i], stride: size}
		for k, x := range axes[i] {
			a.x = append(a.x, float64(x))
			a.u = append(a.u, quickLog(float64(x)+a.offset))
			if k > 0 {
				a.per = append(a.per, 1/(a.u[k]-a.u[k-1]))
			}
		}
		if last := axes[i][len(axes[i])-1]; last < maxCells && len(a.x) < 256 {
			a.cell = make([]uint8, last+1)
			for k, x := range axes[i] {
				for v := x; v <= last; v++ {
					a.cell[v] = uint8(k)
				}
			}
		}
		t.axes[i] = a
		size *= len(axes[i])
	}
	t.values = make([]float32, size)
	const chunk = 32
	parallel(workers, (size+chunk-1)/chunk, func(c int) {
		x := make([]int, len(axes))
		for k := c * chunk; k < min(size, (c+1)*chunk); k++ {
			for i := range axes {
				x[i] = axes[i][k/t.axes[i].stride%len(axes[i])]
			}
			t.values[k] = value(x)
		}
	})
	return t
}

// find is the place of x on the axis: the point at or below it, and how far it
// is to the next, 0 to 1.
func (a *tableAxis) find(x float64) (int, float64) {
	n := len(a.x)
	if n == 1 || x <= a.x[0] {
		return 0, 0
	}
	if x >= a.x[n-1] {
		return n - 2, 1
	}
	if a.cell != nil {
		lo := int(a.cell[int(x)])
		return lo, (quickLog(x+a.offset) - a.u[lo]) * a.per[lo]
	}
	lo, hi := 0, n-1
	for hi-lo > 1 {
		mid := (lo + hi) >> 1
		if a.x[mid] <= x {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo, (quickLog(x+a.offset) - a.u[lo]) * a.per[lo]
}

// at2 is at for a table of two axes.
func (t *table) at2(x, y float64) float64 {
	a, b := &t.axes[0], &t.axes[1]
	i, u := a.find(x)
	j, v := b.find(y)
	up, right := a.stride, 1
	if len(a.x) == 1 {
		up = 0
	}
	if len(b.x) == 1 {
		right = 0
	}
	at := i*a.stride + j
	p, q := float64(t.values[at]), float64(t.values[at+right])
	r, s := float64(t.values[at+up]), float64(t.values[at+up+right])
	lo, hi := p+v*(q-p), r+v*(s-r)
	return lo + u*(hi-lo)
}

func (t *table) at(x *[maxAxes]float64) float64 {
	var weight [maxAxes]float64
	var step [maxAxes]int
	base := 0
	n := len(t.axes)
	for i := range n {
		a := &t.axes[i]
		lo, w := a.find(x[i])
		base += lo * a.stride
		weight[i] = w
		step[i] = a.stride
		if len(a.x) == 1 {
			step[i] = 0
		}
	}
	var v [1 << maxAxes]float64
	v[0] = float64(t.values[base])
	var at [1 << maxAxes]int
	at[0] = base
	count := 1
	for i := range n {
		s := step[i]
		for k := range count {
			at[count+k] = at[k] + s
		}
		count *= 2
	}
	for k := range count {
		v[k] = float64(t.values[at[k]])
	}
	// The last axis that was added is the highest bit.
	for i := n - 1; i >= 0; i-- {
		count /= 2
		w := weight[i]
		for k := range count {
			v[k] += w * (v[k+count] - v[k])
		}
	}
	return v[0]
}

// quickLog is the natural logarithm of a normal positive number to 5e-7, and 0
// of 0: straight lines between the points of a table.
func quickLog(x float64) float64 {
	if !(x > 0) {
		return 0
	}
	b := math.Float64bits(x)
	p := &logTable[b>>(52-logBits)&(1<<logBits-1)]
	rest := float64(b & (1<<(52-logBits) - 1))
	return float64(int(b>>52)-1023)*math.Ln2 + p.y + rest*p.step
}

const logBits = 9

// logTable are the logarithms of 1 to 2; step is by the bits that are left.
var logTable = func() (t [1 << logBits]struct{ y, step float64 }) {
	for i := range t {
		x := 1 + float64(i)/(1<<logBits)
		t[i].y = math.Log(x)
		t[i].step = math.Log1p(1/x/(1<<logBits)) / (1 << (52 - logBits))
	}
	return t
}()
