package traceloader

import "github.com/layerprof/layerprof/perfio"

// Batch is one engine step as lookups see it: the requests, and the
// coordinates that the measured grids go by. The coordinates may also be set
// by hand, where a simulator has no list.
type Batch struct {
	// Requests in executed order; rules that model the kernel's scheduler go
	// by them. The slice stays the caller's.
	Requests []perfio.Request

	PrefillChunk int // sum of the new tokens of prefills
	KVPrefill    int // sum of their KV histories
	NDecode      int // number of decodes
	KVDecodeMean int // floor of the mean KV history of decodes, 0 without any
	KVDecodeMax  int
	KVDecodeMin  int
	Tokens       int // all tokens that the step computes
	Sequences    int // sequences that are sampled

	// ActivatedExperts is the number of distinct experts that the tokens of
	// one rank are routed to. 0: the number expected of uniform routing.
	ActivatedExperts int
}

// NewBatch works out the coordinates of a step from its requests. A request
// with one new token is a decode, one with more a prefill. Negative numbers
// count as 0. It allocates nothing and keeps the slice.
func NewBatch(requests []perfio.Request) Batch {
	b := Batch{Requests: requests}
	prefills, kvDecode := 0, 0
	for _, r := range requests {
		tokens, kv := max(r.NewTokens, 0), max(r.KVHistory, 0)
		b.Tokens += tokens
		switch {
		case tokens == 1:
			if b.NDecode == 0 || kv < b.KVDecodeMin {
				b.KVDecodeMin = kv
			}
			b.KVDecodeMax = max(b.KVDecodeMax, kv)
			kvDecode += kv
			b.NDecode++
		case tokens > 0:
			b.PrefillChunk += tokens
			b.KVPrefill += kv
			prefills++
		}
	}
	if b.NDecode > 0 {
		b.KVDecodeMean = kvDecode / b.NDecode
	}
	b.Sequences = max(len(requests), prefills+b.NDecode)
	return b
}

// Admitted is the number of requests that are in their first step: prefills
// without a history. A batch without Requests has at most one.
func (b *Batch) Admitted() int {
	if len(b.Requests) == 0 {
		if b.PrefillChunk > 0 && b.KVPrefill == 0 {
			return 1
		}
		return 0
	}
	n := 0
	for _, r := range b.Requests {
		if r.KVHistory == 0 && r.NewTokens > 0 {
			n++
		}
	}
	return n
}
