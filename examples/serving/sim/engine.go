// Package sim is a small continuous-batching engine: vLLM's V1 scheduling order
// over step times that a Clock gives. It imports lookups only.
package sim

import (
	"fmt"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// Clock says when steps begin and end. *traceloader.StepClock is one, for each
// engine its own.
type Clock interface {
	// Submit runs a step with this batch, at the earliest at the time given. The
	// batch is only valid during the call.
	Submit(batch traceloader.Batch, earliestNS int64) (traceloader.StepSpan, bool)
	// Drain takes the results that are still out when nothing can be submitted.
	Drain() traceloader.StepSpan
}

// StepTime is a hook of simpler simulators: how long the engine takes from the
// start of a step with this batch to the start of the next one, in nanoseconds.
// It is a Clock without asynchronous scheduling.
type StepTime func(batch []perfio.Request) (int64, bool)

// Submit is Clock's.
func (f StepTime) Submit(batch traceloader.Batch, earliestNS int64) (traceloader.StepSpan, bool) {
	took, ok := f(batch.Requests)
	return traceloader.StepSpan{StartNS: earliestNS, ReadyNS: earliestNS + took, Done: 1}, ok
}

// Drain is Clock's: nothing is ever out.
func (f StepTime) Drain() traceloader.StepSpan { return traceloader.StepSpan{} }

// Outcome is what a run did besides its requests' own times.
type Outcome struct {
	Steps       int
	Preemptions int
	EndNS       int64
}

// Serve runs the requests, which stand in order of arrival, to their end. It is an
// error where limits are none, a step has no answer, or a request alone exceeds the
// KV cache.
func Serve(requests []*Request, limits Limits, clock Clock) (Outcome, error) {
	if err := limits.Check(); err != nil {
		return Outcome{}, err
	}
	s := newScheduler(limits)
	var now int64
	var out Outcome
	next := 0
	for next < len(requests) || s.busy() {
		if !s.busy() {
			now = max(now, requests[next].ArrivalNS)
		}
		for next < len(requests) && requests[next].ArrivalNS <= now {
			s.add(requests[next])
			next++
		}
		batch := s.next()
		if len(batch) == 0 {
			if len(s.flying) == 0 {
				return out, errStuck(s)
			}
			span := clock.Drain()
			now = max(now, span.ReadyNS)
			s.finish(max(1, span.Done), now)
			continue
		}
		span, ok := clock.Submit(traceloader.NewBatch(batch), now)
		if !ok {
			return out, fmt.Errorf("step %d: no answer for a batch of %d requests", out.Steps, len(batch))
		}
		s.submitted()
		now = span.ReadyNS
		s.finish(span.Done, now)
		out.Steps++
	}
	out.Preemptions, out.EndNS = s.preempted, now
	return out, nil
}

// errStuck says why no step can be formed: one request alone exceeds the cache.
func errStuck(s *scheduler) error {
	if len(s.waiting) == 0 {
		return fmt.Errorf("%d running requests have nothing to compute", len(s.running))
	}
	q := s.waiting[len(s.waiting)-1]
	return fmt.Errorf("request %s: found %d tokens, expected at most the %d that the KV cache holds",
		q.request.ID, q.tokens, s.limits.KVBlocks*s.limits.BlockSize)
}
