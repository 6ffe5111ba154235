package traceloader

import "github.com/layerprof/layerprof/perfio"

// attentionRules is what stands behind an Attention handle: one set of rules
// for one tp, chosen when the table is built. Each method returns false where
// it has no answer, and is safe for concurrent use.
type attentionRules interface {
	// uniform is a batch whose decodes all have kd tokens of history.
	uniform(pc, kp, nd, kd int) (int64, bool)
	// skew is a batch whose decodes differ.
	skew(pc, kp, nd, mean, longest, shortest int) (int64, bool)
	// batch is a batch by its requests.
	batch(requests []perfio.Request) (int64, bool)
	// The same with how the answer was found.
	explainUniform(pc, kp, nd, kd int) (int64, Answer)
	explainSkew(pc, kp, nd, mean, longest, shortest int) (int64, Answer)
	explainBatch(requests []perfio.Request) (int64, Answer)
}

// Attention is a handle to the attention layer of one tp. The zero Attention
// answers (0, false). Copies are cheap; all methods are safe for concurrent
// use and allocate nothing.
//
// Under parity negative coordinates count as 0.
type Attention struct{ rules attentionRules }

// LatencyNS returns the latency of one call in nanoseconds, at least 1: a
// prefill chunk over kvPrefill tokens of history beside nDecode decodes that
// all have kvDecode tokens of history. It is false for the zero Attention and
// where Options.Refuse refused.
func (h Attention) LatencyNS(prefillChunk, kvPrefill, nDecode, kvDecode int) (int64, bool) {
	if h.rules == nil {
		return 0, false
	}
	return h.rules.uniform(prefillChunk, kvPrefill, nDecode, kvDecode)
}

// SkewLatencyNS is LatencyNS for decodes of different history: kvMean is the
// floor of their mean, kvMax the longest, kvMin the shortest.
func (h Attention) SkewLatencyNS(prefillChunk, kvPrefill, nDecode, kvMean, kvMax, kvMin int) (int64, bool) {
	if h.rules == nil {
		return 0, false
	}
	return h.rules.skew(prefillChunk, kvPrefill, nDecode, kvMean, kvMax, kvMin)
}

// BatchLatencyNS is the lookup by the list of requests in executed order. Under
// parity it is SkewLatencyNS at the coordinates of NewBatch. It is also false
// where a request has a negative number.
func (h Attention) BatchLatencyNS(requests []perfio.Request) (int64, bool) {
	if h.rules == nil || !validRequests(requests) {
		return 0, false
	}
	return h.rules.batch(requests)
}

// Explain is LatencyNS that also tells how the answer was found.
func (h Attention) Explain(prefillChunk, kvPrefill, nDecode, kvDecode int) (int64, Answer) {
	if h.rules == nil {
		return 0, Answer{}
	}
	return h.rules.explainUniform(prefillChunk, kvPrefill, nDecode, kvDecode)
}

// ExplainSkew is SkewLatencyNS that also tells how the answer was found.
func (h Attention) ExplainSkew(prefillChunk, kvPrefill, nDecode, kvMean, kvMax, kvMin int) (int64, Answer) {
	if h.rules == nil {
		return 0, Answer{}
	}
	return h.rules.explainSkew(prefillChunk, kvPrefill, nDecode, kvMean, kvMax, kvMin)
}

// ExplainBatch is BatchLatencyNS that also tells how the answer was found.
func (h Attention) ExplainBatch(requests []perfio.Request) (int64, Answer) {
	if h.rules == nil || !validRequests(requests) {
		return 0, Answer{}
	}
	return h.rules.explainBatch(requests)
}

func validRequests(requests []perfio.Request) bool {
	for i := range requests {
		if requests[i].NewTokens|requests[i].KVHistory < 0 {
			return false
		}
	}
	return true
}

// parityAttention answers by LLMServingSim's rules.
type parityAttention struct {
	packed *packed // nil for a grid that is too large to pack
	grid   *grid
	alpha  *alphaTable
}

func (p *parityAttention) uniform(pc, kp, nd, kd int) (int64, bool) {
	if p.packed == nil {
		return p.grid.latency(pc, kp, nd, kd), true
	}
	return p.packed.latency(pc, kp, nd, kd), true
}

func (p *parityAttention) skew(pc, kp, nd, mean, longest, shortest int) (int64, bool) {
	if p.packed == nil {
		ns, _ := p.explainSkew(pc, kp, nd, mean, longest, shortest)
		return ns, true
	}
	var c cell
	p.packed.locate(&c, max(pc, 0), max(kp, 0), max(nd, 0))
	tMean := p.packed.eval(&c, max(mean, 0))
	if nd <= 1 || longest == mean {
		return tMean, true
	}
	alpha, _ := p.alpha.lookup(pc, kp, nd, mean, longest, shortest)
	if alpha == 0 {
		return tMean, true
	}
	return skewed(tMean, p.packed.eval(&c, max(longest, 0)), alpha), true
}

func (p *parityAttention) batch(requests []perfio.Request) (int64, bool) {
	b := NewBatch(requests)
	return p.skew(b.PrefillChunk, b.KVPrefill, b.NDecode, b.KVDecodeMean, b.KVDecodeMax, b.KVDecodeMin)
}

func (p *parityAttention) explainUniform(pc, kp, nd, kd int) (int64, Answer) {
	return p.grid.latency(pc, kp, nd, kd), p.grid.answer(pc, kp, nd, kd)
}

func (p *parityAttention) explainSkew(pc, kp, nd, mean, longest, shortest int) (int64, Answer) {
	tMean, a := p.explainUniform(pc, kp, nd, mean)
	if nd <= 1 || longest == mean {
		return tMean, a
	}
	a.Alpha, a.AlphaStatus = p.alpha.lookup(pc, kp, nd, mean, longest, shortest)
	if a.AlphaStatus == Fallback {
		a.Status = Fallback
	}
	if a.Alpha == 0 {
		return tMean, a
	}
	tMax, b := p.explainUniform(pc, kp, nd, longest)
	a = a.merge(b)
	ns := skewed(tMean, tMax, a.Alpha)
	if ns != tMean && a.Status == Measured {
		// Between two measured points, by a fitted alpha.
		a.Status = Interpolated
	}
	return ns, a
}

func (p *parityAttention) explainBatch(requests []perfio.Request) (int64, Answer) {
	b := NewBatch(requests)
	return p.explainSkew(b.PrefillChunk, b.KVPrefill, b.NDecode, b.KVDecodeMean, b.KVDecodeMax, b.KVDecodeMin)
}

// refusing stands before other rules where Options.Refuse was set: what they
// would extrapolate has no answer. Borrowed answers extrapolate whenever an
// axis says so.
type refusing struct{ rules attentionRules }

func refuse(ns int64, a Answer) (int64, Answer) {
	if a.Status == Extrapolated || max(a.PrefillChunk, a.KVPrefill, a.NDecode, a.KVDecode) >= Extrapolated {
		a.Status = Unanswered
		return 0, a
	}
	return ns, a
}

func answered(ns int64, a Answer) (int64, bool) { return ns, a.Status != Unanswered }

func (r refusing) uniform(pc, kp, nd, kd int) (int64, bool) {
	return answered(r.explainUniform(pc, kp, nd, kd))
}

func (r refusing) skew(pc, kp, nd, mean, longest, shortest int) (int64, bool) {
	return answered(r.explainSkew(pc, kp, nd, mean, longest, shortest))
}

func (r refusing) batch(requests []perfio.Request) (int64, bool) {
	return answered(r.explainBatch(requests))
}

func (r refusing) explainUniform(pc, kp, nd, kd int) (int64, Answer) {
	return refuse(r.rules.explainUniform(pc, kp, nd, kd))
}

func (r refusing) explainSkew(pc, kp, nd, mean, longest, shortest int) (int64, Answer) {
	return refuse(r.rules.explainSkew(pc, kp, nd, mean, longest, shortest))
}

func (r refusing) explainBatch(requests []perfio.Request) (int64, Answer) {
	return refuse(r.rules.explainBatch(requests))
}
