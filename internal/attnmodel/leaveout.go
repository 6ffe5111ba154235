package attnmodel

import (
	"math"
	"slices"
)

// How many samples are left out to compare bases.
const leftOutCount = 400

// interior is a sample that straight lines can predict too: between two
// others along at least one axis.
type interior struct {
	sample int
	lines  []float64 // logarithms of what lines predict, one an axis
}

// point is a sample of the grid: one chunk at most, decodes alike.
type point struct{ pc, kp, n, kd int }

func pointOf(runs []Run) (p point, ok bool) {
	if len(runs) > 2 {
		return p, false
	}
	for _, r := range runs {
		if r.New > 1 {
			if p.pc > 0 || r.Count > 1 {
				return p, false
			}
			p.pc, p.kp = r.New, r.History
			continue
		}
		if p.n > 0 {
			return p, false
		}
		p.n, p.kd = r.Count, r.History
	}
	return p, true
}

// leftOut finds interior samples of the grid, spread over it.
func leftOut(samples []Sample) []interior {
	// at is the line that a point is on along an axis, which has -1 there.
	at := func(p point, axis int) (point, int) {
		v := [...]*int{&p.pc, &p.kp, &p.n, &p.kd}[axis]
		value := *v
		*v = -1
		return p, value
	}
	type other struct{ value, sample int }
	lines := map[point][]other{}
	var points []int
	of := make([]point, len(samples))
	for i := range samples {
		p, ok := pointOf(samples[i].Runs)
		if !ok {
			continue
		}
		of[i] = p
		points = append(points, i)
	}
	// Lines are gathered for the asked points only: a set of lines first.
	asked := spread(points, 2*leftOutCount)
	for _, i := range asked {
		for axis := range 4 {
			l, _ := at(of[i], axis)
			lines[l] = nil
		}
	}
	for _, i := range points {
		for axis := range 4 {
			l, v := at(of[i], axis)
			if have, ok := lines[l]; ok {
				lines[l] = append(have, other{v, i})
			}
		}
	}
	var out []interior
	for _, i := range asked {
		in := interior{sample: i}
		for axis := range 4 {
			l, v := at(of[i], axis)
			lo, hi := -1, -1
			for k, o := range lines[l] {
				// Regimes are apart for straight lines too.
				if axis == 0 && (o.value == 0) != (v == 0) || axis == 2 && (o.value == 0) != (v == 0) {
					continue
				}
				if o.value < v && (lo < 0 || o.value > lines[l][lo].value) {
					lo = k
				}
				if o.value > v && (hi < 0 || o.value < lines[l][hi].value) {
					hi = k
				}
			}
			if lo < 0 || hi < 0 {
				continue
			}
			a, b := lines[l][lo], lines[l][hi]
			x := float64(v-a.value) / float64(b.value-a.value)
			in.lines = append(in.lines, math.Log(samples[a.sample].TimeUS+x*(samples[b.sample].TimeUS-samples[a.sample].TimeUS)))
		}
		if len(in.lines) > 0 && len(out) < leftOutCount {
			out = append(out, in)
		}
	}
	return out
}

// lineScore is the error of straight lines, the mean over the axes.
func lineScore(ask []interior, samples []Sample) BasisScore {
	var errs []float64
	for _, in := range ask {
		y, sum := math.Log(samples[in.sample].TimeUS), 0.0
		for _, v := range in.lines {
			sum += math.Abs(v - y)
		}
		errs = append(errs, sum/float64(len(in.lines)))
	}
	return scoreOf(Linear, errs)
}

// score is the error of the predictor at samples that are left out of its
// fields. The basis itself has seen some of them, among hundreds for a handful
// of constants.
func (p *Predictor) score(ask []interior, samples []Sample) BasisScore {
	type place struct{ class, node int }
	where := make(map[int32]place)
	want := make(map[int32]bool, len(ask))
	for _, in := range ask {
		want[int32(in.sample)] = true
	}
	for c, f := range p.fields {
		if f == nil {
			continue
		}
		for i := range f.nodes {
			if want[f.nodes[i].sample] {
				where[f.nodes[i].sample] = place{c, i}
			}
		}
	}
	var errs []float64
	for _, in := range ask {
		if w, ok := where[int32(in.sample)]; ok {
			f := p.fields[w.class]
			mean, _ := f.without(w.node)
			errs = append(errs, math.Abs(mean-f.nodes[w.node].y))
		}
	}
	if len(ask) == 0 {
		// No grid: every field's own samples.
		for _, f := range p.fields {
			if f == nil {
				continue
			}
			for _, i := range sampleIndices(len(f.nodes), leftOutCount/classCount) {
				mean, _ := f.without(i)
				errs = append(errs, math.Abs(mean-f.nodes[i].y))
			}
		}
	}
	return scoreOf(p.calibration.Basis, errs)
}

func scoreOf(b Kernel, errs []float64) BasisScore {
	s := BasisScore{Basis: b, N: len(errs)}
	if len(errs) == 0 {
		return s
	}
	slices.Sort(errs)
	s.P50 = 100 * errs[len(errs)/2]
	s.P90 = 100 * errs[min(len(errs)-1, len(errs)*9/10)]
	if math.IsNaN(s.P50 + s.P90) {
		s.N = 0
	}
	return s
}
