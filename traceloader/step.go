package traceloader

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Walk runs through the layers of a step in the order of the architecture's
// sequence, for one tp. Its handles are resolved once. Copies are cheap; all
// methods are safe for concurrent use.
type Walk struct {
	prologue []call
	block    []call
	head     []call
	depth    int
	experts  int // of the model, for batches that do not say how many are activated
	topK     int
}

// call is one call of one layer: the handle of its category, the others zero.
type call struct {
	layer     string
	category  string
	curve     Curve
	attention Attention
	moe       MoE
	// collective is what the ranks exchange at the end of the call, by the
	// number that its curve goes by.
	collective Curve
}

// LayerLatency is one call of one layer in a step, or what the ranks exchange
// at the end of one: then it follows the layer's entry, under its name and with
// the category collective.
type LayerLatency struct {
	Layer     string
	Category  string // dense, per_sequence, attention, moe or collective
	LatencyNS int64
}

// Step is what Walk.Step fills in. A layer that stands twice in a block has
// two entries, and both count. Reuse one Step for many batches: its slices are
// overwritten and grow only once.
type Step struct {
	Prologue []LayerLatency
	Block    []LayerLatency // one decoder block
	Head     []LayerLatency

	PrologueNS int64
	BlockNS    int64
	HeadNS     int64
	// Depth is the number of decoder blocks, the model config's
	// num_hidden_layers; 0 where no model config is known.
	Depth int
}

// TotalNS is prologue, Depth blocks and head; false where the depth is not
// known.
func (s *Step) TotalNS() (int64, bool) {
	if s.Depth <= 0 {
		return 0, false
	}
	return s.PrologueNS + int64(s.Depth)*s.BlockNS + s.HeadNS, true
}

// Walk resolves the sequence of the architecture for one tp. It is an error
// where no architecture is known or a layer of the sequence was not measured;
// with Options.Lenient such layers are left out and Skipped says which.
func (t *Table) Walk(tp int) (Walk, error) {
	w, skipped, err := t.walk(tp)
	if err == nil && len(skipped) > 0 && !t.options.Lenient {
		return Walk{}, fmt.Errorf("traceloader: tp%d: layers of the sequence that were not measured: %v", tp, skipped)
	}
	return w, err
}

// Skipped returns the layers of the sequence that were not measured at a tp.
func (t *Table) Skipped(tp int) ([]string, error) {
	_, skipped, err := t.walk(tp)
	return skipped, err
}

func (t *Table) walk(tp int) (w Walk, skipped []string, err error) {
	if t.arch == nil {
		return Walk{}, nil, errors.New("traceloader: no architecture is known, set Options.Architecture")
	}
	if t.tp(tp) == nil {
		return Walk{}, nil, fmt.Errorf("traceloader: found tp%d, expected one of %v", tp, t.TPs())
	}
	s := &t.arch.Sequence
	mlp := s.MLPDense
	if t.sparse() {
		mlp = s.MLPMoE
	}
	for _, part := range []struct {
		calls  *[]call
		layers []string
	}{
		{&w.prologue, s.Prologue},
		{&w.block, slices.Concat(s.PreAttn, s.PostAttn, mlp)},
		{&w.head, s.Head},
	} {
		for _, layer := range part.layers {
			c, ok, err := t.call(tp, layer)
			switch {
			case err != nil:
				return Walk{}, nil, err
			case ok:
				*part.calls = append(*part.calls, c)
			case !slices.Contains(skipped, layer):
				skipped = append(skipped, layer)
			}
		}
	}
	if t.model != nil {
		w.depth, w.experts, w.topK = t.model.NumHiddenLayers, t.model.NumExperts, t.model.NumExpertsPerToken
	}
	return w, skipped, nil
}

// sparse says which of the two MLP lists the model runs.
func (t *Table) sparse() bool {
	s := &t.arch.Sequence
	if t.model != nil && len(s.MLPDense) > 0 && len(s.MLPMoE) > 0 {
		return t.model.NumExperts > 0
	}
	return len(s.MLPMoE) > 0
}

func (t *Table) call(tp int, layer string) (c call, ok bool, err error) {
	e := t.catalogEntry(layer)
	if e == nil {
		return call{}, false, fmt.Errorf("traceloader: architecture %s: layer %s of the sequence is not in the catalog", t.arch.ModelType, layer)
	}
	c = call{layer: layer, category: e.Category}
	switch e.Category {
	case categoryDense:
		c.curve, ok = t.Dense(tp, layer)
	case categoryPerSequence:
		c.curve, ok = t.PerSequence(tp, layer)
	case categoryAttention:
		c.attention, ok = t.Attention(tp)
	case categoryMoE:
		c.moe, ok = t.moeFor(tp)
	default:
		return call{}, false, fmt.Errorf("traceloader: architecture %s: layer %s: category: found %q, expected dense, per_sequence, attention or moe", t.arch.ModelType, layer, e.Category)
	}
	c.collective, _ = t.Collective(tp, layer)
	return c, ok, nil
}

// Depth returns the number of decoder blocks; 0 where it is not known.
func (w Walk) Depth() int { return w.depth }

// answering is the walk with Options.Refuse undone, for what is fitted on
// lookups: a fit that leaves out what is refused is another one.
func (w Walk) answering() Walk {
	for _, calls := range []*[]call{&w.prologue, &w.block, &w.head} {
		*calls = slices.Clone(*calls)
		for i := range *calls {
			c := &(*calls)[i]
			c.curve, c.collective = c.curve.answering(), c.collective.answering()
			if r, ok := c.attention.rules.(refusing); ok {
				c.attention.rules = r.rules
			}
			if c.moe.m != nil {
				m := *c.moe.m
				m.refuse = false
				c.moe.m = &m
			}
		}
	}
	return w
}

// answering is the curve without a limit.
func (h Curve) answering() Curve {
	if h.c == nil {
		return h
	}
	c := *h.c
	c.limit = math.MaxInt
	return Curve{&c}
}

// Step fills s with the latencies of a batch's step. It is false, and s holds
// nothing of use, where a lookup has no answer: Options.Refuse refused, a
// request has a negative number, or there is nothing to compute. It goes by
// b.Requests where there are any, else by the coordinates.
func (w Walk) Step(b Batch, s *Step) bool { return w.step(b, s, nil) }

// step is Step with attention of lists by a memo, where there is one.
func (w *Walk) step(b Batch, s *Step, memo *DecodeMemo) bool {
	w.begin(&b, s)
	return b.Tokens > 0 &&
		runCalls(w.prologue, &b, memo, &s.Prologue, &s.PrologueNS) &&
		runCalls(w.block, &b, memo, &s.Block, &s.BlockNS) &&
		runCalls(w.head, &b, memo, &s.Head, &s.HeadNS)
}

func (w *Walk) begin(b *Batch, s *Step) {
	s.Prologue, s.Block, s.Head = s.Prologue[:0], s.Block[:0], s.Head[:0]
	s.PrologueNS, s.BlockNS, s.HeadNS, s.Depth = 0, 0, 0, w.depth
	if b.ActivatedExperts == 0 {
		b.ActivatedExperts = ExpectedExperts(b.Tokens, w.experts, w.topK)
	}
}

func runCalls(calls []call, b *Batch, memo *DecodeMemo, out *[]LayerLatency, sum *int64) bool {
	for i := range calls {
		ns, ok := calls[i].latency(b, memo)
		if !ok {
			return false
		}
		*out = append(*out, LayerLatency{calls[i].layer, calls[i].category, ns})
		*sum += ns
		if calls[i].collective.c == nil {
			continue
		}
		if ns, ok = calls[i].collective.LatencyNS(calls[i].size(b)); !ok {
			return false
		}
		*out = append(*out, LayerLatency{calls[i].layer, CategoryCollective, ns})
		*sum += ns
	}
	return true
}

// size is the number that a curve of the layer goes by.
func (c *call) size(b *Batch) int {
	if c.category == categoryPerSequence {
		return b.Sequences
	}
	return b.Tokens
}

func (c *call) latency(b *Batch, memo *DecodeMemo) (int64, bool) {
	switch {
	case c.attention.rules != nil:
		if len(b.Requests) > 0 && memo != nil {
			return memo.LatencyNS(b.Requests)
		}
		if len(b.Requests) > 0 {
			return c.attention.BatchLatencyNS(b.Requests)
		}
		return c.attention.SkewLatencyNS(b.PrefillChunk, b.KVPrefill, b.NDecode, b.KVDecodeMean, b.KVDecodeMax, b.KVDecodeMin)
	case c.moe.m != nil:
		if b.ActivatedExperts == 0 {
			return 0, false
		}
		return c.moe.LatencyNS(b.Tokens, b.ActivatedExperts)
	}
	return c.curve.LatencyNS(c.size(b))
}

// Explain tells how each entry of Step is answered, in the order of prologue,
// block and head, appended to dst, and the worst of them.
func (w Walk) Explain(b Batch, dst []Answer) ([]Answer, Status) {
	var s Step
	w.begin(&b, &s)
	worst := Measured
	for _, calls := range [...][]call{w.prologue, w.block, w.head} {
		for i := range calls {
			at := len(dst)
			dst = append(dst, calls[i].explain(&b))
			if c := calls[i].collective; c.c != nil {
				_, a := c.Explain(calls[i].size(&b))
				dst = append(dst, a)
			}
			for _, a := range dst[at:] {
				if a.Status == Unanswered || worst == Unanswered {
					worst = Unanswered
					continue
				}
				worst = worse(worst, a.Status)
			}
		}
	}
	return dst, worst
}

func (c *call) explain(b *Batch) (a Answer) {
	switch {
	case c.attention.rules != nil && len(b.Requests) > 0:
		_, a = c.attention.ExplainBatch(b.Requests)
	case c.attention.rules != nil:
		_, a = c.attention.ExplainSkew(b.PrefillChunk, b.KVPrefill, b.NDecode, b.KVDecodeMean, b.KVDecodeMax, b.KVDecodeMin)
	case c.moe.m != nil && b.ActivatedExperts == 0:
	case c.moe.m != nil:
		_, a = c.moe.Explain(b.Tokens, b.ActivatedExperts)
	default:
		_, a = c.curve.Explain(c.size(b))
	}
	return a
}
