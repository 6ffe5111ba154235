package judge

import (
	"github.com/layerprof/layerprof/internal/accuracy"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// accurateRules are traceloader.Accurate on the rows of a test, with the
// bundle's meta.yaml.
type accurateRules struct {
	meta    *perfio.Meta
	degree  int
	numbers bool // ask with three numbers rather than with the list
}

// Names of the rules in results.
const (
	accurateName = "accurate"
	numbersName  = "accurate-numbers"
)

func (r accurateRules) Name() string {
	if r.numbers {
		return numbersName
	}
	return accurateName
}

func (r accurateRules) Train(d accuracy.Data) (accuracy.Predictor, error) {
	// The skew table of the bundle itself was fitted on rows that are held out.
	b, err := withFit(r.meta, perfio.TP{Degree: r.degree, Attention: d.Attention, Skew: d.Skew}, d.Skew)
	if err != nil {
		return nil, err
	}
	t, err := traceloader.New(b, traceloader.Options{Rules: traceloader.Accurate, Lenient: true, IgnoreCalibration: true})
	if err != nil {
		return nil, err
	}
	h, ok := t.Attention(r.degree)
	if !ok {
		return nil, errNoAttention
	}
	if r.numbers {
		return handle{h}, nil
	}
	return &listHandle{h: h, first: r.meta == nil || r.meta.Root == nil || r.meta.PrefillFirst()}, nil
}

// listHandle asks traceloader with the list of requests.
type listHandle struct {
	h        traceloader.Attention
	first    bool // prefill first
	requests []perfio.Request
}

func (p *listHandle) list(q accuracy.Query) []perfio.Request {
	r := p.requests[:0]
	if p.first && q.PC > 0 {
		r = append(r, perfio.Request{NewTokens: q.PC, KVHistory: q.KP})
	}
	for i := range q.N {
		kv := q.KVSmall
		if i < q.NB {
			kv = q.KVBig
		}
		r = append(r, perfio.Request{NewTokens: 1, KVHistory: kv})
	}
	if !p.first && q.PC > 0 {
		r = append(r, perfio.Request{NewTokens: q.PC, KVHistory: q.KP})
	}
	p.requests = r
	return r
}

func (p *listHandle) AttentionUS(q accuracy.Query) (float64, bool) {
	ns, ok := p.h.BatchLatencyNS(p.list(q))
	return float64(ns) / 1000, ok
}

func (p *listHandle) EstimateUS(q accuracy.Query) (us, sigma float64, ok bool) {
	e, ok := p.h.EstimateBatch(p.list(q))
	return float64(e.LatencyNS) / 1000, e.Sigma, ok
}
