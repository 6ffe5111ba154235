package attnmodel

import "math"

// problem is a robust non-linear least-squares problem: soft-L1 of residuals
// over a scale, plus a quadratic pull to the start.
type problem struct {
	scale float64   // residuals beyond it count linearly
	pull  []float64 // weight of ((x-start))^2, in the same units as the cost
	lo    []float64 // bounds; nil is none
	hi    []float64
	steps int // at most this many accepted or refused steps
	// residuals fills r for x. jacobian fills r and, row by row, dr/dx.
	residuals func(x, r []float64)
	jacobian  func(x, r, jac []float64)
	weight    func(i int) float64 // of a residual; nil is 1
}

// solve runs Levenberg-Marquardt from start with n residuals.
func (p *problem) solve(start []float64, n int) []float64 {
	k := len(start)
	x := append([]float64(nil), start...)
	next := make([]float64, k)
	r, trial := make([]float64, n), make([]float64, n)
	jac := make([]float64, n*k)
	normal, grad := make([]float64, k*k), make([]float64, k)
	damped, move := make([]float64, k*k), make([]float64, k)
	lambda := 1e-3
	p.jacobian(x, r, jac)
	cost := p.cost(x, start, r)
	for step := range p.steps {
		if step > 0 {
			p.jacobian(x, r, jac)
		}
		p.normalEquations(x, start, r, jac, normal, grad)
		improved := false
		for range 4 {
			copy(damped, normal)
			for i := range k {
				damped[i*k+i] += lambda*normal[i*k+i] + 1e-12
			}
			copy(move, grad)
			if !solveCholesky(damped, move, k) {
				lambda *= 10
				continue
			}
			for i := range next {
				next[i] = x[i] - min(max(move[i], -0.7), 0.7)
				if p.lo != nil {
					next[i] = min(max(next[i], p.lo[i]), p.hi[i])
				}
			}
			p.residuals(next, trial)
			if c := p.cost(next, start, trial); c < cost {
				gain := cost - c
				copy(x, next)
				cost = c
				lambda = max(lambda*0.2, 1e-9)
				improved = gain > 1e-5*cost
				break
			}
			lambda *= 8
		}
		if !improved {
			break
		}
	}
	return x
}

func (p *problem) weightOf(i int) float64 {
	if p.weight == nil {
		return 1
	}
	return p.weight(i)
}

func (p *problem) cost(x, start, r []float64) float64 {
	c := 0.0
	for i, v := range r {
		u := v / p.scale
		c += p.weightOf(i) * 2 * (math.Sqrt(1+u*u) - 1)
	}
	for i := range x {
		d := x[i] - start[i]
		c += p.pull[i] * d * d
	}
	if math.IsNaN(c) {
		return math.Inf(1)
	}
	return c
}

func (p *problem) normalEquations(x, start, r, jac, normal, grad []float64) {
	k := len(x)
	clear(normal)
	clear(grad)
	for i, v := range r {
		u := v / p.scale
		w := p.weightOf(i) / (p.scale * p.scale * math.Sqrt(1+u*u))
		row := jac[i*k : i*k+k]
		for a, ja := range row {
			wa := w * ja
			grad[a] += wa * v
			for b := 0; b <= a; b++ {
				normal[a*k+b] += wa * row[b]
			}
		}
	}
	for a := range k {
		normal[a*k+a] += p.pull[a]
		grad[a] += p.pull[a] * (x[a] - start[a])
		for b := 0; b < a; b++ {
			normal[b*k+a] = normal[a*k+b]
		}
	}
}

// solveCholesky solves the symmetric positive definite k by k system in place;
// false when it is not positive definite.
func solveCholesky(m, b []float64, k int) bool {
	for i := range k {
		for j := 0; j <= i; j++ {
			s := m[i*k+j]
			for l := range j {
				s -= m[i*k+l] * m[j*k+l]
			}
			if i == j {
				if !(s > 0) {
					return false
				}
				m[i*k+i] = math.Sqrt(s)
			} else {
				m[i*k+j] = s / m[j*k+j]
			}
		}
	}
	for i := range k {
		for l := range i {
			b[i] -= m[i*k+l] * b[l]
		}
		b[i] /= m[i*k+i]
	}
	for i := k - 1; i >= 0; i-- {
		for l := i + 1; l < k; l++ {
			b[i] -= m[l*k+i] * b[l]
		}
		b[i] /= m[i*k+i]
	}
	return true
}

// parallel runs f(0..n-1) on as many goroutines as given, 1 or more.
func parallel(workers, n int, f func(i int)) {
	if workers <= 1 || n <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	done := make(chan struct{})
	for range workers {
		go func() {
			for i := range next {
				f(i)
			}
			done <- struct{}{}
		}()
	}
	for range workers {
		<-done
	}
}
