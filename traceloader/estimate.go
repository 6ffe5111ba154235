package traceloader

import "github.com/layerprof/layerprof/perfio"

// Estimate is a latency and how sure it is.
type Estimate struct {
	LatencyNS int64
	// Sigma is one standard error, relative to LatencyNS: about two thirds of
	// answers are within it. 0 is not known, as under Parity.
	Sigma  float64
	Status Status
}

func estimateOf(ns int64, a Answer) (Estimate, bool) {
	return Estimate{LatencyNS: ns, Sigma: a.Sigma, Status: a.Status}, a.Status != Unanswered
}

// Estimate is LatencyNS with its error; false where that has no answer.
func (h Attention) Estimate(prefillChunk, kvPrefill, nDecode, kvDecode int) (Estimate, bool) {
	return estimateOf(h.Explain(prefillChunk, kvPrefill, nDecode, kvDecode))
}

// EstimateSkew is SkewLatencyNS with its error; false where that has no
// answer.
func (h Attention) EstimateSkew(prefillChunk, kvPrefill, nDecode, kvMean, kvMax, kvMin int) (Estimate, bool) {
	return estimateOf(h.ExplainSkew(prefillChunk, kvPrefill, nDecode, kvMean, kvMax, kvMin))
}

// EstimateBatch is BatchLatencyNS with its error; false where that has no
// answer.
func (h Attention) EstimateBatch(requests []perfio.Request) (Estimate, bool) {
	return estimateOf(h.ExplainBatch(requests))
}

// Estimate is LatencyNS with its error; false where that has no answer.
func (h Curve) Estimate(q int) (Estimate, bool) { return estimateOf(h.Explain(q)) }
