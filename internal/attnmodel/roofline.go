package attnmodel

import "math"

// roofline knows of no kernel: a launch, arithmetic and memory traffic, of
// which the greater counts. It is what residuals are taken of where no kernel
// is known.
type roofline struct {
	regimes [3]rooflineParams
	padded  bool // decodes count as if all had the longest history
}

type rooflineParams struct {
	F0     float64 `json:"f0_us"`
	Token  float64 `json:"token_us"`
	Flop   float64 `json:"pair_us"` // a query token by a key
	Byte   float64 `json:"key_us"`  // a key read
	Smooth float64 `json:"smooth"`
}

func (m *roofline) class(runs []Run) int {
	chunk := false
	for _, r := range runs {
		chunk = chunk || r.New > 1
	}
	switch {
	case !chunk:
		return 0
	case decodes(runs) == 0:
		return 1
	}
	return 2
}

func (m *roofline) TimeUS(runs []Run) float64 {
	us, _ := m.timeUS(runs)
	return us
}

func (m *roofline) timeUS(runs []Run) (us float64, class int) {
	class = m.class(runs)
	return m.regimes[class].timeUS(m.work(runs)), class
}

func (m *roofline) work(runs []Run) (tokens, pairs, keys float64) {
	tokens, pairs, keys = work(runs)
	if !m.padded {
		return tokens, pairs, keys
	}
	longest := 0
	for _, r := range runs {
		if r.New == 1 {
			longest = max(longest, r.History)
		}
	}
	for _, r := range runs {
		if r.New == 1 {
			more := float64(r.Count) * float64(longest-r.History)
			pairs += more
			keys += more
		}
	}
	return tokens, pairs, keys
}

func work(runs []Run) (tokens, pairs, keys float64) {
	for _, r := range runs {
		n, q, h := float64(r.Count), float64(r.New), float64(r.History)
		tokens += n * q
		pairs += n * q * (h + (q+1)/2)
		keys += n * (h + q)
	}
	return tokens, pairs, keys
}

func (p *rooflineParams) timeUS(tokens, pairs, keys float64) float64 {
	f, b := p.Flop*pairs, p.Byte*keys
	big, small := max(f, b), min(f, b)
	if big <= 0 {
		return p.F0
	}
	return p.F0 + p.Token*tokens + big*math.Pow(1+math.Pow(small/big, p.Smooth), 1/p.Smooth)
}

// fitRoofline fits each regime that has samples; the others take the constants
// of one that has.
func fitRoofline(samples []Sample, padded bool) *roofline {
	m := &roofline{padded: padded}
	var of [3][]Sample
	shortest := math.Inf(1)
	for _, s := range samples {
		of[m.class(s.Runs)] = append(of[m.class(s.Runs)], s)
		shortest = min(shortest, s.TimeUS)
	}
	known := -1
	for regime := range of {
		rows := spread(of[regime], fitRows)
		if len(rows) == 0 {
			continue
		}
		known = regime
		m.regimes[regime] = m.fitRegime(rows, shortest)
	}
	for regime := range of {
		if len(of[regime]) == 0 && known >= 0 {
			m.regimes[regime] = m.regimes[known]
		}
	}
	return m
}

func (m *roofline) fitRegime(rows []Sample, shortest float64) rooflineParams {
	perPair, perKey := math.Inf(1), math.Inf(1)
	for _, s := range rows {
		_, pairs, keys := m.work(s.Runs)
		perPair, perKey = min(perPair, s.TimeUS/pairs), min(perKey, s.TimeUS/keys)
	}
	params := func(x []float64) rooflineParams {
		return rooflineParams{math.Exp(x[0]), math.Exp(x[1]), math.Exp(x[2]), math.Exp(x[3]), math.Exp(x[4])}
	}
	start := []float64{math.Log(shortest), math.Log(shortest / 1000), math.Log(perPair), math.Log(perKey), math.Log(2)}
	k := len(start)
	residuals := func(x, r []float64) {
		p := params(x)
		for i, s := range rows {
			r[i] = math.Log(p.timeUS(m.work(s.Runs)) / s.TimeUS)
		}
	}
	moved := make([]float64, len(rows))
	p := problem{
		scale: 0.05, steps: 20, pull: make([]float64, k), lo: make([]float64, k), hi: make([]float64, k),
		residuals: residuals,
		jacobian: func(x, r, jac []float64) {
			residuals(x, r)
			for a := range k {
				const h = 0.01
				x[a] += h
				residuals(x, moved)
				x[a] -= h
				for i := range rows {
					jac[i*k+a] = (moved[i] - r[i]) / h
				}
			}
		},
	}
	for a := range k {
		p.pull[a], p.lo[a], p.hi[a] = 0.01, start[a]-8, start[a]+8
	}
	p.lo[4], p.hi[4] = math.Log(0.7), math.Log(8)
	return params(p.solve(start, len(rows)))
}
