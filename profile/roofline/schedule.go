package roofline

import "math"

// schedule computes the makespan of tiles that go, in their order, to
// whichever unit is free first. Units that become free at the same time are
// kept as one level with a count, so that equal tiles cost one step a level and
// not one each. The zero value is ready; it may be used again, by one goroutine.
type schedule struct {
	levels []level // a binary heap by time
}

type level struct {
	at    float64
	units int
}

// mergeShare is the relative distance below which levels join: they stay few,
// and the makespan is off by less than a unit's share of it.
const mergeShare = 0.002

func (s *schedule) start(units int) {
	s.levels = append(s.levels[:0], level{0, units})
}

// add runs the tiles; it returns when the last of them ends.
func (s *schedule) add(count int, cost float64) float64 {
	end := 0.0
	for count > 0 {
		top := s.levels[0]
		n := min(count, top.units)
		// Rounds in which every unit takes one tile only shift the levels.
		if len(s.levels) == 1 && count > top.units {
			rounds := count / top.units
			s.levels[0].at += float64(rounds) * cost
			end = s.levels[0].at
			count -= rounds * top.units
			continue
		}
		count -= n
		done := top.at + cost
		end = math.Max(end, done)
		if n == top.units {
			s.levels[0].at = done
			s.down(0)
			s.join()
			continue
		}
		s.levels[0].units -= n
		s.push(level{done, n})
	}
	return end
}

// join merges levels at the heap's top that stand at nearly the same time.
func (s *schedule) join() {
	for len(s.levels) > 1 {
		next := 1
		if len(s.levels) > 2 && s.levels[2].at < s.levels[1].at {
			next = 2
		}
		if s.levels[next].at-s.levels[0].at > mergeShare*s.levels[next].at {
			return
		}
		s.levels[next].units += s.levels[0].units
		last := len(s.levels) - 1
		s.levels[0] = s.levels[last]
		s.levels = s.levels[:last]
		if last > 0 {
			s.down(0)
		}
	}
}

func (s *schedule) push(l level) {
	s.levels = append(s.levels, l)
	for i := len(s.levels) - 1; i > 0; {
		up := (i - 1) / 2
		if s.levels[up].at <= s.levels[i].at {
			return
		}
		s.levels[up], s.levels[i] = s.levels[i], s.levels[up]
		i = up
	}
}

func (s *schedule) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(s.levels) {
			return
		}
		if r := child + 1; r < len(s.levels) && s.levels[r].at < s.levels[child].at {
			child = r
		}
		if s.levels[i].at <= s.levels[child].at {
			return
		}
		s.levels[i], s.levels[child] = s.levels[child], s.levels[i]
		i = child
	}
}
