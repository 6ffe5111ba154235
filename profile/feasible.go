package profile

import (
	"fmt"
	"math"
)

// unbounded stands for a limit that the engine does not have. Small enough
// that sums of a few of them do not overflow.
const unbounded = math.MaxInt / 16

func limitOr(n int) int {
	if n <= 0 {
		return unbounded
	}
	return n
}

// check refuses limits that no plan can be made of.
func (l Limits) check() error {
	switch {
	case l.MaxNumBatchedTokens < 1:
		return fmt.Errorf("max_num_batched_tokens: found %d, expected at least 1", l.MaxNumBatchedTokens)
	case l.MaxNumSeqs < 1:
		return fmt.Errorf("max_num_seqs: found %d, expected at least 1", l.MaxNumSeqs)
	case l.MaxNumBatchedTokens > unbounded || l.MaxNumSeqs > unbounded:
		return fmt.Errorf("limits: max_num_batched_tokens %d or max_num_seqs %d is too large", l.MaxNumBatchedTokens, l.MaxNumSeqs)
	case l.MaxModelLen < 0 || l.CacheTokens < 0 || l.NumExperts < 0 || l.TopK < 0 || l.BlockSize < 0:
		return fmt.Errorf("limits: found a negative number in %+v", l)
	}
	return nil
}

// block is the engine's KV block size; vLLM's own default where none is given.
func (l Limits) block() int {
	if l.BlockSize < 1 {
		return 16
	}
	return l.BlockSize
}

// ceilBlock rounds n tokens up to whole KV blocks.
func (l Limits) ceilBlock(n int) int {
	b := l.block()
	return (n + b - 1) / b * b
}

func (l Limits) feasibleDense(tokens int) bool {
	return l.ceilBlock(tokens) <= limitOr(l.CacheTokens) && tokens < limitOr(l.MaxModelLen)
}

func (l Limits) feasibleSequences(n int) bool {
	return n <= l.MaxNumBatchedTokens && l.block()*n <= limitOr(l.CacheTokens)
}

func (l Limits) feasibleAttention(p AttentionPoint) bool {
	prefills := min(p.PrefillChunk, 1)
	modelLen := limitOr(l.MaxModelLen)
	return p.PrefillChunk+p.NDecode <= l.MaxNumBatchedTokens+l.MaxNumSeqs &&
		prefills+p.NDecode <= l.MaxNumSeqs &&
		p.PrefillChunk+p.KVPrefill+1 <= modelLen &&
		p.KVDecode+2 <= modelLen &&
		l.ceilBlock(p.PrefillChunk+p.KVPrefill)+p.NDecode*l.ceilBlock(1+p.KVDecode) <= limitOr(l.CacheTokens)
}

func (l Limits) feasibleMoE(tokens, experts int) bool {
	return l.TopK <= experts && experts <= min(l.NumExperts, tokens*l.TopK) &&
		tokens < limitOr(l.MaxModelLen) && l.ceilBlock(tokens) <= limitOr(l.CacheTokens)
}

func (l Limits) feasibleSkew(c SkewCase, maxKV int) bool {
	prefills := min(c.PC, 1)
	modelLen := limitOr(l.MaxModelLen)
	return c.PC <= l.MaxNumBatchedTokens+1 &&
		c.KVS <= maxKV+1 && c.KVBig <= maxKV+1 && c.KP <= maxKV+1 &&
		c.PC+c.N <= l.MaxNumBatchedTokens+l.MaxNumSeqs &&
		c.KVBig+1 <= modelLen &&
		(c.PC == 0 || c.PC+c.KP+1 <= modelLen) &&
		c.N+prefills <= l.MaxNumSeqs &&
		c.NB*l.ceilBlock(c.KVBig)+(c.N-c.NB)*l.ceilBlock(c.KVS)+l.ceilBlock(c.PC+c.KP) <= limitOr(l.CacheTokens)
}

// Infeasible says why an engine with these limits cannot run the batch, or
// returns "". It goes by the engine's own limits alone, where the plan's rules
// for each category leave a margin.
func (l Limits) Infeasible(groups []Group) string {
	var tokens, sequences, cache, longest int
	for _, g := range groups {
		tokens += g.Count * g.NewTokens
		sequences += g.Count
		cache += g.Count * l.ceilBlock(g.NewTokens+g.KVHistory)
		longest = max(longest, g.NewTokens+g.KVHistory)
	}
	if most := l.MaxNumBatchedTokens + l.MaxNumSeqs; tokens > most {
		return fmt.Sprintf("%d tokens, the engine takes %d", tokens, most)
	}
	if sequences > l.MaxNumSeqs {
		return fmt.Sprintf("%d requests, max_num_seqs is %d", sequences, l.MaxNumSeqs)
	}
	if cache > limitOr(l.CacheTokens) {
		return fmt.Sprintf("%d tokens of KV cache, the engine has %d", cache, l.CacheTokens)
	}
	if longest >= limitOr(l.MaxModelLen) {
		return fmt.Sprintf("a sequence of %d tokens, max_model_len is %d", longest, l.MaxModelLen)
	}
	return ""
}
