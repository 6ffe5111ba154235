package sim

import (
	"fmt"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// Limits are the engine's: what bounds a step and the KV cache.
type Limits struct {
	MaxNumBatchedTokens int
	MaxNumSeqs          int
	KVBlocks            int // 0: no limit
	BlockSize           int
	// PrefixCaching reuses the full blocks of requests that share a prompt
	// beginning (Request.Prefix).
	PrefixCaching bool
}

// Check refuses what no engine has.
func (l Limits) Check() error {
	for _, limit := range []struct {
		name         string
		found, least int
	}{
		{"max-num-batched-tokens", l.MaxNumBatchedTokens, 1}, {"max-num-seqs", l.MaxNumSeqs, 1},
		{"kv-blocks", l.KVBlocks, 0}, {"block-size", l.BlockSize, 1},
	} {
		if limit.found < limit.least || limit.found > perfio.MaxKey {
			return fmt.Errorf("%s: found %d, expected %d to %d", limit.name, limit.found, limit.least, perfio.MaxKey)
		}
	}
	return nil
}

// sequence is a request inside the engine.
type sequence struct {
	request  *Request
	tokens   int // prompt and generated so far, those on their way included
	issued   int // generated tokens, those on their way included
	computed int // tokens whose KV is in the cache
	blocks   int
	cached   int // blocks of those that are the prefix cache's
}

// scheduler forms steps in the order of vLLM's V1 scheduler: the running
// requests first, each by what it lacks; then, unless one had to be preempted,
// waiting requests as long as tokens, seats and blocks last. A prompt is
// computed in chunks of what is left of the step's tokens. When blocks run out
// the request that came last loses its own and waits again at the front.
type scheduler struct {
	limits     Limits
	waiting    []*sequence // the front is the end
	running    []*sequence
	freeBlocks int
	prefix     prefixCache
	preempted  int
	// reused from step to step
	batch     []perfio.Request
	scheduled []scheduledSequence
	// flying are the steps that were submitted and whose results are not there
	// yet, oldest first; spare is what they were kept in.
	flying [][]*sequence
	spare  [][]*sequence
}

type scheduledSequence struct {
	sequence *sequence
	tokens   int
}

func newScheduler(limits Limits) *scheduler {
	return &scheduler{limits: limits, freeBlocks: limits.KVBlocks, prefix: prefixCache{entries: map[string]*prefixEntry{}}}
}

func (s *scheduler) add(r *Request) {
	s.waiting = append(s.waiting, nil)
	copy(s.waiting[1:], s.waiting)
	s.waiting[0] = &sequence{request: r, tokens: r.InputTokens}
}

func (s *scheduler) busy() bool { return len(s.waiting)+len(s.running)+len(s.flying) > 0 }

// grow gives the sequence the blocks for tokens more and says whether there
// were enough.
func (s *scheduler) grow(q *sequence, tokens int) bool {
	need := (q.computed+tokens+s.limits.BlockSize-1)/s.limits.BlockSize - q.blocks
	if need <= 0 {
		return true
	}
	if s.limits.KVBlocks > 0 {
		if need > s.freeBlocks {
			s.freeBlocks += s.prefix.evict(need - s.freeBlocks)
		}
		if need > s.freeBlocks {
			return false
		}
		s.freeBlocks -= need
	}
	q.blocks += need
	return true
}

func (s *scheduler) release(q *sequence) {
	own := q.blocks - q.cached
	if s.limits.PrefixCaching && q.request.Prefix != "" {
		own -= s.prefix.leave(q, s.limits.BlockSize)
	}
	s.freeBlocks += own
	q.blocks, q.cached, q.computed = 0, 0, 0
}

// next forms the next step; its batch is valid until the one after. Decodes
// stand first, as the engine executes them.
func (s *scheduler) next() []perfio.Request {
	budget := s.limits.MaxNumBatchedTokens
	s.scheduled = s.scheduled[:0]
	preempted := false
	for i := 0; i < len(s.running) && budget > 0; i++ {
		q := s.running[i]
		if q.issued >= q.request.OutputTokens {
			continue // its last token is on its way
		}
		tokens := min(q.tokens-q.computed, budget)
		for !s.grow(q, tokens) {
			last := s.running[len(s.running)-1]
			s.running = s.running[:len(s.running)-1]
			s.release(last)
			s.waiting = append(s.waiting, last)
			s.preempted++
			preempted = true
			if last == q {
				tokens = 0
				break
			}
		}
		if tokens == 0 {
			break
		}
		budget -= tokens
		s.scheduled = append(s.scheduled, scheduledSequence{q, tokens})
	}
	for !preempted && budget > 0 && len(s.waiting) > 0 && len(s.running) < s.limits.MaxNumSeqs {
		q := s.waiting[len(s.waiting)-1]
		if s.limits.PrefixCaching && q.blocks == 0 && q.request.Prefix != "" {
			q.cached = s.prefix.hit(q, s.limits.BlockSize)
			q.blocks, q.computed = q.cached, q.cached*s.limits.BlockSize
		}
		tokens := min(q.tokens-q.computed, budget)
		if !s.grow(q, tokens) {
			break
		}
		s.waiting = s.waiting[:len(s.waiting)-1]
		s.running = append(s.running, q)
		budget -= tokens
		s.scheduled = append(s.scheduled, scheduledSequence{q, tokens})
	}
	s.batch = s.batch[:0]
	for _, decode := range []bool{true, false} {
		for _, x := range s.scheduled {
			if (x.tokens == 1 && x.sequence.computed > 0) == decode {
				s.batch = append(s.batch, perfio.Request{NewTokens: x.tokens, KVHistory: x.sequence.computed})
			}
		}
	}
	return s.batch
}

// submitted notes that the step that next formed runs: the tokens that it will
// bring are on their way.
func (s *scheduler) submitted() {
	var bring []*sequence
	if n := len(s.spare); n > 0 {
		bring, s.spare = s.spare[n-1][:0], s.spare[:n-1]
	}
	for _, x := range s.scheduled {
		q := x.sequence
		q.computed += x.tokens
		if q.computed < q.tokens {
			continue // a chunk of its prompt: no token yet
		}
		q.tokens++
		q.issued++
		bring = append(bring, q)
	}
	s.flying = append(s.flying, bring)
}

// finish books the results of the oldest steps as there at the time given.
func (s *scheduler) finish(steps int, nowNS int64) {
	done := false
	for _, bring := range s.flying[:steps] {
		for _, q := range bring {
			r := q.request
			r.generated++
			if r.generated == 1 {
				r.FirstTokenNS = nowNS
			}
			if r.generated >= r.OutputTokens {
				r.DoneNS = nowNS
				s.release(q)
				done = true
			}
		}
		s.spare = append(s.spare, bring)
	}
	s.flying = append(s.flying[:0], s.flying[steps:]...)
	if !done {
		return
	}
	kept := s.running[:0]
	for _, q := range s.running {
		if q.request.DoneNS == 0 {
			kept = append(kept, q)
		}
	}
	s.running = kept
	// One may have been preempted while its last token was on its way.
	s.waiting = slices.DeleteFunc(s.waiting, func(q *sequence) bool { return q.request.DoneNS != 0 })
}
