package stepmodel

import (
	"math"
	"slices"
)

// Line is a host's time by the batch: Base + PerRequest for each request +
// PerAdmitted for each that is new. Microseconds.
type Line struct {
	Base        float64
	PerRequest  float64
	PerAdmitted float64
}

// At is the line's value; never below 0.
func (l Line) At(requests, admitted int) float64 {
	return max(0, l.Base+l.PerRequest*float64(requests)+l.PerAdmitted*float64(admitted))
}

type linePoint struct {
	requests, admitted float64
	us                 float64
}

// fitLine fits by least squares reweighted towards least absolute deviations:
// a host's times have a long upper tail that must not pull. None of the three
// is below 0; what the points do not tell apart is 0.
func fitLine(points []linePoint) Line {
	if len(points) == 0 {
		return Line{}
	}
	use := [3]bool{true, spreads(points, func(p linePoint) float64 { return p.requests }), spreads(points, func(p linePoint) float64 { return p.admitted })}
	for {
		x := reweighted(points, use)
		worst := -1
		for k := 1; k < 3; k++ {
			if use[k] && x[k] < 0 && (worst < 0 || x[k] < x[worst]) {
				worst = k
			}
		}
		if worst < 0 {
			return Line{Base: x[0], PerRequest: x[1], PerAdmitted: x[2]}
		}
		use[worst] = false
	}
}

func spreads(points []linePoint, of func(linePoint) float64) bool {
	for _, p := range points[1:] {
		if of(p) != of(points[0]) {
			return true
		}
	}
	return false
}

const reweightings = 30

func reweighted(points []linePoint, use [3]bool) (x [3]float64) {
	weights := make([]float64, len(points))
	residuals := make([]float64, len(points))
	for i := range weights {
		weights[i] = 1
	}
	for range reweightings {
		var m [3][3]float64
		var b [3]float64
		for i, p := range points {
			f := [3]float64{1, p.requests, p.admitted}
			for r := range 3 {
				if !use[r] {
					continue
				}
				b[r] += weights[i] * f[r] * p.us
				for c := range 3 {
					if use[c] {
						m[r][c] += weights[i] * f[r] * f[c]
					}
				}
			}
		}
		next := solve3(m, b, use)
		for i, p := range points {
			residuals[i] = math.Abs(p.us - next[0] - next[1]*p.requests - next[2]*p.admitted)
		}
		scale := max(median(residuals), 1e-3)
		for i, r := range residuals {
			weights[i] = 1 / max(r, scale/4)
		}
		done := true
		for k := range 3 {
			done = done && math.Abs(next[k]-x[k]) <= 1e-6*(1+math.Abs(x[k]))
		}
		x = next
		if done {
			break
		}
	}
	return x
}

// solve3 solves the normal equations by elimination; a direction that the
// points do not span gets 0.
func solve3(m [3][3]float64, b [3]float64, use [3]bool) (x [3]float64) {
	var diagonal [3]float64
	for k := range 3 {
		diagonal[k] = m[k][k]
	}
	for k := range 3 {
		if !use[k] || m[k][k] <= 1e-9*diagonal[k] {
			use[k] = false
			continue
		}
		for r := k + 1; r < 3; r++ {
			if !use[r] {
				continue
			}
			f := m[r][k] / m[k][k]
			for c := k; c < 3; c++ {
				m[r][c] -= f * m[k][c]
			}
			b[r] -= f * b[k]
		}
	}
	for k := 2; k >= 0; k-- {
		if !use[k] {
			continue
		}
		s := b[k]
		for c := k + 1; c < 3; c++ {
			s -= m[k][c] * x[c]
		}
		x[k] = s / m[k][k]
	}
	return x
}

// median of the values, 0 of none; the slice is left as it is.
func median(values []float64) float64 { return quantile(values, 0.5) }

func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}
