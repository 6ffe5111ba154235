package profile

import (
	"strconv"

	"github.com/layerprof/layerprof/perfio"
)

// Category says which table of the bundle a shot is measured for.
type Category string

// The categories, in the order in which a plan lists them.
const (
	Dense       Category = "dense"
	PerSequence Category = "per_sequence"
	Attention   Category = "attention"
	MoE         Category = "moe"
	Skew        Category = "skew"
	Batches     Category = "batches"    // random batches kept in batches.jsonl
	Validation  Category = "validation" // random batches kept apart from every fit
	Step        Category = "step"       // whole steps; see the step category's own file
)

// Group is Count requests that are alike and stand next to each other in the
// batch. A decode has one new token.
type Group struct {
	Count     int
	NewTokens int
	KVHistory int
}

// SkewRole says which of a skew case's three batches a shot is.
type SkewRole string

// The three batches of a skew case.
const (
	RoleMean SkewRole = "t_mean"
	RoleMax  SkewRole = "t_max"
	RoleSkew SkewRole = "t_skew"
)

// SkewCase is one row of skew.csv before it is measured.
type SkewCase struct {
	N      int
	NB     int
	Ratio  float64
	Skew   float64
	PC     int
	KP     int
	KVS    int
	KVBig  int
	KVMean int
}

// AttentionPoint is the key of a row of attention.csv. PrefillChunk 0 is pure
// decode, NDecode 0 pure prefill.
type AttentionPoint struct {
	PrefillChunk int
	KVPrefill    int
	NDecode      int
	KVDecode     int
}

// Shot is one batch to measure. Groups stand in the order in which the engine
// is to execute them. A Shot is plain data: copies share Groups, which nobody
// changes after the plan has made them.
type Shot struct {
	Category Category
	Groups   []Group
	// Experts is the number of distinct experts that the routing is to
	// activate, evenly loaded; 0 leaves the routing to the gate.
	Experts int
	// Histogram, if not nil, is the number of tokens for each expert, in place
	// of Experts; it sums to tokens * top_k.
	Histogram []int
	// Point is set for attention shots only: the row that the shot is for. The
	// groups alone cannot tell a prefill chunk of one token from a decode.
	Point AttentionPoint
	// Case and Role are set for skew shots only.
	Case *SkewCase
	Role SkewRole
}

// Shape identifies the batch whatever it is measured for: two shots of equal
// shape may share one measurement. Example: "64x1@1024,1x512@0".
func (s Shot) Shape() string {
	b := make([]byte, 0, 16*len(s.Groups)+8)
	for i, g := range s.Groups {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(g.Count), 10)
		b = append(b, 'x')
		b = strconv.AppendInt(b, int64(g.NewTokens), 10)
		b = append(b, '@')
		b = strconv.AppendInt(b, int64(g.KVHistory), 10)
	}
	if s.Experts > 0 {
		b = append(b, "/experts="...)
		b = strconv.AppendInt(b, int64(s.Experts), 10)
	}
	for i, n := range s.Histogram {
		if i == 0 {
			b = append(b, "/histogram="...)
		} else {
			b = append(b, '+')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return string(b)
}

// Requests lists the batch request by request, in executed order.
func (s Shot) Requests() []perfio.Request {
	out := make([]perfio.Request, 0, s.Sequences())
	for _, g := range s.Groups {
		for range g.Count {
			out = append(out, perfio.Request{NewTokens: g.NewTokens, KVHistory: g.KVHistory})
		}
	}
	return out
}

// Tokens is the number of tokens that the step computes.
func (s Shot) Tokens() int {
	n := 0
	for _, g := range s.Groups {
		n += g.Count * g.NewTokens
	}
	return n
}

// Sequences is the number of requests in the batch.
func (s Shot) Sequences() int {
	n := 0
	for _, g := range s.Groups {
		n += g.Count
	}
	return n
}
