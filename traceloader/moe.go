package traceloader

import (
	"fmt"
	"math"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// moeTable is latency over tokens and activated experts: one curve over tokens
// per measured number of experts.
type moeTable struct {
	byExperts index
	experts   []int
	rows      []*curve  // by experts
	pairs     []moePair // by the number of expert counts that are at most the query
	refuse    bool
	errors    bool // Sigma is known, as under the accurate rules

	// The rows' segments by the place of the query on the distinct tokens of
	// all rows, which is found once for both rows of a pair. nil where that
	// would take too much memory.
	byTokens index
	segs     []segment
}

// moePair is the two rows around a query and its place between them.
type moePair struct {
	lo, hi int // rows
	x0, w  float64
	// The rows' first segments.
	loSegs, hiSegs int
}

// maxMoESegments bounds segs.
const maxMoESegments = 1 << 18

func newMoETable(rows []perfio.MoERow, o *Options, warn func(string, ...any)) (*moeTable, error) {
	byExperts := map[int][]point{}
	for i := range rows {
		r := &rows[i]
		if err := checkKey("tokens", r.Tokens, 0); err != nil {
			return nil, fmt.Errorf("row %d: %w", i+1, err)
		}
		if err := checkKey("activated_experts", r.ActivatedExperts, 0); err != nil {
			return nil, fmt.Errorf("row %d: %w", i+1, err)
		}
		ns, err := latencyNS(r.TimeUS)
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", i+1, err)
		}
		byExperts[r.ActivatedExperts] = append(byExperts[r.ActivatedExperts], point{r.Tokens, ns, i})
	}
	m := &moeTable{refuse: o.Refuse, errors: o.Rules == Accurate}
	for e := range byExperts {
		m.experts = append(m.experts, e)
	}
	slices.Sort(m.experts)
	indexes := &indexCache{}
	free := *o
	free.Refuse = false // the table refuses, not its rows
	for _, e := range m.experts {
		c, err := newCurve(byExperts[e], "tokens", &free, indexes, func(format string, a ...any) {
			warn("activated_experts %d: "+format, append([]any{e}, a...)...)
		})
		if err != nil {
			return nil, fmt.Errorf("activated_experts %d: %w", e, err)
		}
		if m.errors {
			c.knowErrors()
		}
		m.rows = append(m.rows, c)
	}
	stride := m.pack()
	n := len(m.experts)
	m.byExperts = newIndex(m.experts)
	m.pairs = make([]moePair, n+1)
	for count := range m.pairs {
		p := moePair{w: 1}
		if count > 0 && n > 1 {
			hi := min(count, n-1)
			x0, x1 := m.experts[hi-1], m.experts[hi]
			p = moePair{hi - 1, hi, float64(x0), float64(x1 - x0), (hi - 1) * stride, hi * stride}
		}
		m.pairs[count] = p
	}
	return m, nil
}

// pack fills segs and returns the number of segments of a row.
func (m *moeTable) pack() int {
	var tokens []int
	for _, r := range m.rows {
		tokens = append(tokens, r.xs...)
	}
	slices.Sort(tokens)
	tokens = slices.Compact(tokens)
	stride := len(tokens) + 1
	if stride*len(m.rows) > maxMoESegments {
		return 0
	}
	m.byTokens = newIndex(tokens)
	for _, r := range m.rows {
		m.segs = append(m.segs, r.segs[0])
		for _, x := range tokens {
			m.segs = append(m.segs, r.segs[countAtMost(r.xs, x)])
		}
	}
	return stride
}

func (m *moeTable) latency(tokens, experts int) int64 {
	p := &m.pairs[m.byExperts.of(experts)]
	var lo, hi float64
	if m.segs != nil {
		at, q := m.byTokens.of(tokens), float64(tokens)
		lo, hi = m.segs[p.loSegs+at].at(q), m.segs[p.hiSegs+at].at(q)
	} else {
		lo, hi = m.rows[p.lo].value(tokens), m.rows[p.hi].value(tokens)
	}
	// The same order of operations as a curve: the place, then the blend.
	return wholeNS(lo + float64(((float64(experts)-p.x0)/p.w)*(hi-lo)))
}

func (m *moeTable) answer(tokens, experts int) Answer {
	a := Answer{Status: axisStatus(m.experts, experts)}
	pair(ends(axisBracket(m.experts, experts)), func(i int) {
		a.Status = worse(a.Status, axisStatus(m.rows[i].xs, tokens))
	})
	return a
}

// sigma is one standard error of the answer, relative: that along the tokens, as
// of any curve, and that between numbers of experts.
func (m *moeTable) sigma(tokens, experts int) float64 {
	along := 0.0
	pair(ends(axisBracket(m.experts, experts)), func(i int) { along = max(along, m.rows[i].sigma(tokens)) })
	if axisStatus(m.experts, experts) == Measured {
		return along
	}
	return math.Hypot(along, m.across(tokens, experts))
}

// across is the part of sigma that lies between numbers of experts: the largest
// distance, at these tokens, of a row from the line between its neighbours. There
// are too few rows for a quantile.
func (m *moeTable) across(tokens, experts int) float64 {
	n := len(m.experts)
	switch last := m.experts[n-1]; {
	case n < 3:
		return fewSigma
	case experts > last:
		return edgeSigma + farSigma(experts, last)
	}
	value := func(i int) float64 { return max(1, m.rows[i].value(tokens)) }
	worst := repeatSigma(float64(m.latency(tokens, experts)) / 1000)
	for i := 1; i < n-1; i++ {
		t := float64(m.experts[i]-m.experts[i-1]) / float64(m.experts[i+1]-m.experts[i-1])
		worst = max(worst, math.Abs(math.Log(value(i)/lerp(value(i-1), value(i+1), t))))
	}
	return worst
}

// MoE is a handle to the sparse block. The zero MoE answers (0, false). Copies
// are cheap; all methods are safe for concurrent use.
type MoE struct{ m *moeTable }

// LatencyNS returns the latency of one call in nanoseconds, at least 1, for
// one rank's tokens and the number of distinct experts that they are routed
// to; either counts as 1 below 1. It is false for the zero MoE, and where
// Options.Refuse refused.
func (h MoE) LatencyNS(tokens, activatedExperts int) (int64, bool) {
	m := h.m
	if m == nil {
		return 0, false
	}
	tokens, activatedExperts = max(tokens, 1), max(activatedExperts, 1)
	if m.refuse && m.answer(tokens, activatedExperts).Status == Extrapolated {
		return 0, false
	}
	return m.latency(tokens, activatedExperts), true
}

// Explain is LatencyNS that also tells how the answer was found.
func (h MoE) Explain(tokens, activatedExperts int) (int64, Answer) {
	ns, ok := h.LatencyNS(tokens, activatedExperts)
	if !ok {
		return 0, Answer{}
	}
	a := h.m.answer(max(tokens, 1), max(activatedExperts, 1))
	if tokens < 1 || activatedExperts < 1 {
		a.Status = worse(a.Status, Clamped)
	}
	if h.m.errors {
		a.Sigma = h.m.sigma(max(tokens, 1), max(activatedExperts, 1))
	}
	return ns, a
}

// Estimate is LatencyNS with its error; false where that has no answer.
func (h MoE) Estimate(tokens, activatedExperts int) (Estimate, bool) {
	return estimateOf(h.Explain(tokens, activatedExperts))
}

// ExpectedExperts is the number of distinct experts that tokens tokens are
// expected to activate when each is routed to topK of experts at random,
// rounded to the nearest integer. It is what a walk assumes where a batch does
// not say.
func ExpectedExperts(tokens, experts, topK int) int {
	if tokens <= 0 || experts <= 0 || topK <= 0 {
		return 0
	}
	if topK >= experts {
		return experts
	}
	miss := math.Pow(1-float64(topK)/float64(experts), float64(tokens))
	return max(topK, int(math.RoundToEven(float64(experts)*(1-miss))))
}
