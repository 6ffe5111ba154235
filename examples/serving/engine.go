package main

import (
	"fmt"

	"github.com/layerprof/layerprof/perfio"
)

// StepTime says how long the engine takes from the start of a step with this
// batch to the start of the next one, in nanoseconds. The batch is only valid
// during the call.
type StepTime func(batch []perfio.Request) (int64, error)

// Outcome is what a run did besides its requests' own times.
type Outcome struct {
	Steps       int
	Preemptions int
	EndNS       int64
}

// serve runs the requests, which stand in order of arrival, to their end.
func serve(requests []*Request, limits Limits, stepTime StepTime) (Outcome, error) {
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
			return out, errStuck(s)
		}
		took, err := stepTime(batch)
		if err != nil {
			return out, err
		}
		now += took
		s.finish(now)
		out.Steps++
	}
	out.Preemptions, out.EndNS = s.preempted, now
	return out, nil
}

// errStuck says why no step can be formed: one request alone exceeds the cache.
func errStuck(s *scheduler) error {
	q := s.waiting[len(s.waiting)-1]
	return fmt.Errorf("request %s: found %d tokens, expected at most the %d that the KV cache holds",
		q.request.ID, q.tokens, s.limits.KVBlocks*s.limits.BlockSize)
}
