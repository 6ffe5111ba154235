package attnmodel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// With narrow slots the schedule is the one that places tile by tile.
func TestWheelPlace(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 3))
	for round := range 50 {
		sms := 1 + rnd.IntN(200)
		early := 0.1 * rnd.Float64()
		var w wheel
		w.reset(sms, 0, 40, early)
		free := make([]float64, sms)
		last := 0.0
		for range 400 {
			n, cost := 1+rnd.IntN(30)*rnd.IntN(2), math.Ceil(40*rnd.Float64()*rnd.Float64())
			w.place(n, cost, 1)
			for range n {
				i := slices.Index(free, slices.Min(free))
				if free[i] == 0 {
					free[i] = cost * (1 + early)
				} else {
					free[i] += cost
				}
				last = max(last, free[i])
			}
		}
		if math.Abs(w.last-last) > 0.01*last {
			t.Fatalf("round %d: makespan %g, one by one %g", round, w.last, last)
		}
	}
}

// Small tiles raise the earliest times by their work, and tiles behind them
// start at the times that were raised, however wide slots are.
func TestWheelFill(t *testing.T) {
	for _, width := range []float64{0.001, 0.7, 2.5, 100} {
		var w wheel
		w.reset(4, width, 10, 0)
		w.place(1, 2, 0)
		w.fill(3) // 1 1 1 2
		if at := w.earliest(); at > 2 || at < 1 {
			t.Errorf("slots of %g: free from %g on, want 1", width, at)
		}
		w.place(3, 1, 0)
		w.fill(4)
		// All work is done, and no multiprocessor is left behind.
		sum := 0.0
		for w.count > 0 {
			at, n := w.take()
			sum += at * float64(n)
			w.count -= n
		}
		if math.Abs(sum-12) > 1e-9 {
			t.Errorf("slots of %g: work %g, want 12", width, sum)
		}
	}
}

// Equal tiles that are noted together keep their work, and none that start
// further apart are.
func TestWheelBlur(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 4))
	var w wheel
	w.reset(50, 0, 40, 0.05)
	w.blur = 2
	want := 0.0
	for range 100 {
		n, cost := 1+rnd.IntN(90), 1+39*rnd.Float64()
		at := len(w.spans)
		w.place(n, cost, 0.5)
		sum := 0.0
		for _, s := range w.spans[at:] {
			sum += s.weight
			want += s.weight * (s.end - s.start)
		}
		if math.Abs(sum-0.5*float64(n)) > 1e-9 {
			t.Fatalf("weight %g, want %g", sum, 0.5*float64(n))
		}
	}
	if !slices.IsSortedFunc(w.spans, func(a, b span) int {
		if a.start < b.start-2 {
			return -1
		}
		if a.start > b.start+2 {
			return 1
		}
		return 0
	}) {
		t.Error("spans are out of order")
	}
	var d [demandBins]float64
	demand(w.spans, w.last, &d)
	got := 0.0
	for _, v := range d {
		got += v * w.last / demandBins
	}
	if math.Abs(got-want) > 1e-6*want {
		t.Errorf("demand %g, want %g", got, want)
	}
}
