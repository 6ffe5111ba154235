package attnmodel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// The grouped schedule must be the one that places tile by tile.
func TestLevelsPlace(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 50 {
		sms := 1 + rnd.IntN(40)
		var l levels
		l.reset(sms)
		free := make([]float64, sms)
		last := 0.0
		for range 60 {
			n, cost := 1+rnd.IntN(30), float64(1+rnd.IntN(9))
			l.place(n, cost, 0, nil)
			for range n {
				i := slices.Index(free, slices.Min(free))
				free[i] += cost
				last = max(last, free[i])
			}
		}
		if l.last != last {
			t.Fatalf("round %d: makespan %g, one by one %g", round, l.last, last)
		}
	}
}

// The demand's mean over the schedule is the spans' weight times their length.
func TestDemandKeepsWork(t *testing.T) {
	spans := []span{{0, 10, 2}, {3, 4, 5}, {9.99, 10, 1}, {0.01, 0.02, 4}}
	var d [demandBins]float64
	demand(spans, 10, &d)
	sum, want := 0.0, 0.0
	for _, v := range d {
		sum += v * 10 / demandBins
	}
	for _, s := range spans {
		want += s.weight * (s.end - s.start)
	}
	if math.Abs(sum-want) > 1e-9 {
		t.Errorf("integral %g, want %g", sum, want)
	}
}

// A fit finds the constants behind times that the model itself made.
func TestFitsRecoverTheirOwnTimes(t *testing.T) {
	g := Geometry{QueryHeads: 32, KVHeads: 8, SMs: 100}
	var batches [][]Run
	for _, pc := range []int{0, 16, 100, 700, 2000} {
		for _, kp := range []int{0, 900, 5000} {
			for _, n := range []int{0, 1, 7, 60, 200} {
				for _, kd := range []int{30, 500, 4000} {
					b := AppendRun(nil, Run{New: pc, History: kp, Count: 1})
					if b = AppendRun(b, Run{New: 1, History: kd, Count: n}); len(b) > 0 {
						batches = append(batches, b)
					}
				}
			}
		}
	}
	check := func(t *testing.T, truth, fitted func([]Run) float64) {
		t.Helper()
		var errs []float64
		for _, b := range batches {
			errs = append(errs, math.Abs(fitted(b)/truth(b)-1))
		}
		slices.Sort(errs)
		if p90 := errs[len(errs)*9/10]; !(p90 < 0.02) {
			t.Errorf("p90 of the error %.3f after the fit", p90)
		}
	}
	samples := func(truth func([]Run) float64) (out []Sample) {
		for _, b := range batches {
			out = append(out, Sample{Runs: b, TimeUS: truth(b)})
		}
		return out
	}
	t.Run("FA3", func(t *testing.T) {
		p := FA3Defaults()
		for i := range p {
			p[i].Tau *= 1.3
			p[i].A *= 0.8
			p[i].F0 *= 1.2
			p[i].BW *= 0.6
		}
		m := NewFA3(g, p)
		check(t, m.TimeUS, NewFA3(g, FitFA3(g, samples(m.TimeUS), FA3Defaults())).TimeUS)
	})
	t.Run("FA2", func(t *testing.T) {
		p := FA2Defaults()
		for i := range p {
			p[i].Tau *= 1.3
			p[i].F0 *= 0.7
			p[i].BW *= 0.6
		}
		m := NewFA2(g, p)
		check(t, m.TimeUS, NewFA2(g, FitFA2(g, samples(m.TimeUS), FA2Defaults())).TimeUS)
	})
}

// Constants out of any range neither crash nor hang.
func TestAbsurdConstants(t *testing.T) {
	g := Geometry{QueryHeads: 32, KVHeads: 8, SMs: 20}
	batch := []Run{{New: 300, History: 70, Count: 1}, {New: 1, History: 5000, Count: 30}, {New: 1, History: 3, Count: 2}}
	for _, v := range []float64{0, -3, 1e300, math.Inf(1), math.NaN()} {
		p3, p2 := FA3Defaults(), FA2Defaults()
		for i := range p3 {
			p3[i].Phi, p3[i].A = 2*v, v
		}
		for i := range p2 {
			p2[i].Phi, p2[i].Cd, p2[i].E = v, v, v
		}
		NewFA3(g, p3).TimeUS(batch)
		NewFA2(g, p2).TimeUS(batch)
		NewFA3(g, p3).TimeUS(batch[1:])
		NewFA2(g, p2).TimeUS(batch[1:])
	}
}

// A fit to times that no kernel has ends, with finite constants.
func TestFitsOnNoise(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	g := Geometry{QueryHeads: 16, KVHeads: 2, SMs: 188}
	var samples []Sample
	for range 300 {
		b := AppendRun(nil, Run{New: 1 + rnd.IntN(900)*rnd.IntN(2), History: rnd.IntN(9000), Count: 1})
		b = AppendRun(b, Run{New: 1, History: rnd.IntN(9000), Count: rnd.IntN(200)})
		samples = append(samples, Sample{Runs: b, TimeUS: math.Exp(rnd.Float64() * 12)})
	}
	m3, m2 := NewFA3(g, FitFA3(g, samples, FA3Defaults())), NewFA2(g, FitFA2(g, samples, FA2Defaults()))
	for _, s := range samples {
		for _, us := range []float64{m3.TimeUS(s.Runs), m2.TimeUS(s.Runs)} {
			if !(us > 0) || math.IsInf(us, 1) {
				t.Fatalf("%v: %g us", s.Runs, us)
			}
		}
	}
}
