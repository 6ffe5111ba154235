package traceloader

import (
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// DecodeMemo answers the steps of one engine by lists, much faster where a step
// is the one before grown by a token a request, as running decodes are: it asks
// for the step now and for the one some steps ahead, and draws a line between.
// A step that is not such a one is asked for as it is. Use one memo for each
// engine; it is not safe for concurrent use. The zero DecodeMemo answers
// nothing.
type DecodeMemo struct {
	attention Attention
	from      []int // KV histories at the first step of the line
	ahead     []perfio.Request
	startNS   int64
	endNS     int64
	span      int
}

// Lines are at most memoSteps long, and end where a request begins another
// block of keys, which is where the time of a kernel jumps: that of the longest
// request, and where requests are few, of each.
const (
	memoSteps = 48
	memoFew   = 8
	memoKeys  = 128
)

// NewDecodeMemo makes a memo for one engine.
func NewDecodeMemo(h Attention) *DecodeMemo { return &DecodeMemo{attention: h} }

// LatencyNS is Attention.BatchLatencyNS; in steps that only grow it differs by
// what the time is not straight over some tens of tokens.
func (m *DecodeMemo) LatencyNS(requests []perfio.Request) (int64, bool) {
	if step, ok := m.grown(requests); ok {
		return m.startNS + (m.endNS-m.startNS)*int64(step)/int64(m.span), true
	}
	m.span = 0
	start, ok := m.attention.BatchLatencyNS(requests)
	if !ok || !onlyDecodes(requests) {
		return start, ok
	}
	span := lineSpan(requests)
	if span == 0 {
		return start, true
	}
	m.from, m.ahead = m.from[:0], m.ahead[:0]
	for _, r := range requests {
		m.from = append(m.from, r.KVHistory)
		m.ahead = append(m.ahead, perfio.Request{NewTokens: 1, KVHistory: r.KVHistory + span})
	}
	end, ok := m.attention.BatchLatencyNS(m.ahead)
	if ok {
		m.startNS, m.endNS, m.span = start, end, span
	}
	return start, true
}

// lineSpan is how many steps a line from here may reach.
func lineSpan(requests []perfio.Request) int {
	left := func(r perfio.Request) int { return memoKeys - 1 - r.KVHistory%memoKeys }
	span, longest := memoSteps, 0
	for i, r := range requests {
		if len(requests) <= memoFew {
			span = min(span, left(r))
		}
		if r.KVHistory > requests[longest].KVHistory {
			longest = i
		}
	}
	return min(span, left(requests[longest]))
}

// grown tells by how many tokens all requests have grown since the line began.
func (m *DecodeMemo) grown(requests []perfio.Request) (int, bool) {
	if m.span == 0 || len(requests) != len(m.from) || len(requests) == 0 {
		return 0, false
	}
	step := requests[0].KVHistory - m.from[0]
	if step < 0 || step > m.span {
		return 0, false
	}
	for i, r := range requests {
		if r.NewTokens != 1 || r.KVHistory-m.from[i] != step {
			return 0, false
		}
	}
	return step, true
}

func onlyDecodes(requests []perfio.Request) bool {
	return !slices.ContainsFunc(requests, func(r perfio.Request) bool { return r.NewTokens != 1 })
}
