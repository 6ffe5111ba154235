package roofline

import (
	"math"
	"math/rand/v2"
	"testing"
)

// list runs the tiles one by one.
func list(units int, tiles [][2]float64) float64 {
	free := make([]float64, units)
	end := 0.0
	for _, t := range tiles {
		for range int(t[0]) {
			first := 0
			for u := range free {
				if free[u] < free[first] {
					first = u
				}
			}
			free[first] += t[1]
			end = math.Max(end, free[first])
		}
	}
	return end
}

func TestScheduleIsListSchedule(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var s schedule
	for range 300 {
		units := 1 + random.IntN(40)
		var tiles [][2]float64
		for range 1 + random.IntN(30) {
			tiles = append(tiles, [2]float64{float64(random.IntN(3 * units)), 0.2 + 20*random.Float64()*random.Float64()})
		}
		want := list(units, tiles)
		s.start(units)
		got := 0.0
		for _, x := range tiles {
			got = math.Max(got, s.add(int(x[0]), x[1]))
		}
		total := 0
		for _, l := range s.levels {
			total += l.units
		}
		if total != units {
			t.Fatalf("%d units became %d", units, total)
		}
		// Joined levels move the end by a share of it, and may move a tile.
		if math.Abs(got/want-1) > 0.02 && math.Abs(got-want) > 1e-9 {
			t.Errorf("%d units, %v: makespan %v, one by one %v", units, tiles, got, want)
		}
	}
}

func TestScheduleRounds(t *testing.T) {
	var s schedule
	s.start(4)
	if got := s.add(4000001, 2); got != 2000002 {
		t.Errorf("4000001 tiles of 2 on 4 units end at %v, want 2000002", got)
	}
}
