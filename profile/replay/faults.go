package replay

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/rand/v2"
)

// fault is what an attempt at a shot runs into.
type fault int

const (
	none fault = iota
	fails
	crashes
	hangs
)

// attempt counts one more attempt at the shot, from 1, and says whether the
// device is in its second state by now.
func (s *Source) attempt(k shotKey) (n int, second bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts[k]++
	if s.options.Drift != 0 {
		second = s.drift.next()
	}
	return s.attempts[k], second
}

const shortestState, longestState = 200, 600 // shots

// drift is a device that alternates between two states, the first one first.
type drift struct {
	random *rand.Rand
	left   int // shots until the state changes
	second bool
}

func newDrift(seed int64) drift {
	return drift{random: rand.New(rand.NewPCG(uint64(seed), 0xd21f7)), second: true}
}

// next is the state in which one more shot is answered.
func (d *drift) next() (second bool) {
	if d.left == 0 {
		d.left = shortestState + d.random.IntN(longestState-shortestState+1)
		d.second = !d.second
	}
	d.left--
	return d.second
}

// draw seeds a stream for one attempt at a shot and one use of it.
func (s *Source) draw(k shotKey, attempt int, use string) *rand.Rand {
	h := fnv.New64a()
	write := func(v uint64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], v)
		h.Write(b[:])
	}
	text := func(v string) {
		write(uint64(len(v)))
		h.Write([]byte(v))
	}
	text(use)
	text(string(k.category))
	text(string(k.role))
	text(k.shape)
	for _, v := range []int{k.tp, attempt, k.skew.n, k.skew.nb, k.skew.pc, k.skew.kp, k.skew.kvs} {
		write(uint64(v))
	}
	write(math.Float64bits(k.skew.skew))
	return rand.New(rand.NewPCG(uint64(s.options.Seed), h.Sum64()))
}

// fault draws what happens to the attempt.
func (s *Source) fault(k shotKey, attempt int) fault {
	o := &s.options
	if o.Fail+o.Crash+o.Hang == 0 {
		return none
	}
	switch u := s.draw(k, attempt, "fault").Float64(); {
	case u < o.Fail:
		return fails
	case u < o.Fail+o.Crash:
		return crashes
	case u < o.Fail+o.Crash+o.Hang:
		return hangs
	}
	return none
}

// leastFactor keeps a noisy sample above zero.
const leastFactor = 0.01

// samples are n timed runs that took timeUS without noise.
func (s *Source) samples(timeUS float64, n int, noise *rand.Rand) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = timeUS
		if noise != nil {
			out[i] *= math.Max(leastFactor, 1+s.options.Noise*noise.NormFloat64())
		}
	}
	return out
}
