package attnmodel

import "github.com/layerprof/layerprof/perfio"

// Geometry is what a model needs to know of a kernel's surroundings: the heads
// on one rank and the number of multiprocessors of the device.
type Geometry struct {
	QueryHeads int
	KVHeads    int
	SMs        int
	ByteCache  bool // numbers of the KV cache are single bytes, not two
}

// Valid reports whether the models can be used at all: counts known, and query
// heads a multiple of the key heads.
func (g Geometry) Valid() bool {
	return g.KVHeads > 0 && g.SMs > 0 && g.QueryHeads >= g.KVHeads && g.QueryHeads%g.KVHeads == 0
}

// Group is the number of query heads that share one key head.
func (g Geometry) Group() int { return g.QueryHeads / g.KVHeads }

// Run is Count equal requests that follow one another in a batch.
type Run struct {
	New     int // tokens computed in the step, at least 1
	History int // tokens of KV history
	Count   int
}

// AppendRuns appends the batch to dst, equal neighbours as one run; requests
// without new tokens are left out.
func AppendRuns(dst []Run, requests []perfio.Request) []Run {
	for _, r := range requests {
		dst = AppendRun(dst, Run{New: r.NewTokens, History: r.KVHistory, Count: 1})
	}
	return dst
}

// AppendRun appends one run, merged with the last one where both are alike.
func AppendRun(dst []Run, r Run) []Run {
	if r.New <= 0 || r.Count <= 0 {
		return dst
	}
	if r.History < 0 {
		r.History = 0
	}
	if n := len(dst); n > 0 && dst[n-1].New == r.New && dst[n-1].History == r.History {
		dst[n-1].Count += r.Count
		return dst
	}
	return append(dst, r)
}

// Sample is one measured batch.
type Sample struct {
	Runs   []Run
	TimeUS float64
	// Weight of the sample in a fit; 0 counts as 1. Samples of more than 1 are
	// fitted on even where there are too many.
	Weight float64
	// Skew marks a batch of skew.csv, a sweep apart from the grid's that does
	// not say in which order unlike decodes ran. FlashAttention-3 depends on the order, and
	// its model is better off without them; others learn from them.
	Skew bool
}

func (s *Sample) fitWeight() float64 {
	if s.Weight == 0 {
		return 1
	}
	return s.Weight
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
