package attnmodel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// unlike is a batch of n decodes of random lengths, with a chunk behind them
// where pc is not 0.
func unlike(rnd *rand.Rand, n, pc int) []Run {
	var runs []Run
	median := math.Exp(5 + 3*rnd.Float64())
	for range n {
		runs = AppendRun(runs, Run{New: 1, History: int(median * math.Exp(0.8*rnd.NormFloat64())), Count: 1})
	}
	return AppendRun(runs, Run{New: pc, History: rnd.IntN(4000), Count: min(pc, 1)})
}

// Decodes whose keys are not split run head by head: the schedule is the one
// that a list of all tiles in that order has, one multiprocessor after another.
func TestFA2DecodesRunHeadByHead(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 6))
	g := Geometry{QueryHeads: 32, KVHeads: 8, SMs: 100}
	c := FA2Defaults()[FA2Decode]
	c.Early = 0
	for range 30 {
		// Long requests last, where the order matters most.
		runs := unlike(rnd, 40+rnd.IntN(30), 0)
		slices.SortFunc(runs, func(a, b Run) int { return a.History - b.History })
		sh := g.fa2Shape(runs)
		if sh.splits > 1 {
			t.Fatalf("%d splits, want a batch without", sh.splits)
		}
		var sc scratch
		g.fa2Schedule(runs, &sh, &c, &sc)
		free := make([]float64, g.SMs)
		for range g.KVHeads {
			for _, r := range runs {
				for range r.Count {
					i := slices.Index(free, slices.Min(free))
					free[i] += c.blocks(r.History+1) + c.Cd
				}
			}
		}
		if want := slices.Max(free); math.Abs(sc.makespan+sc.skipped-want) > 0.05*want {
			t.Errorf("%d requests: makespan %.1f + %.1f key blocks, tile by tile %.1f", sh.requests, sc.makespan, sc.skipped, want)
		}
	}
}

// Heads that are left out of a schedule change little: they are as the others.
func TestFA2HeadsLeftOut(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, g := range []Geometry{{QueryHeads: 32, KVHeads: 8, SMs: 188}, {QueryHeads: 32, KVHeads: 4, SMs: 188}, {QueryHeads: 64, KVHeads: 8, SMs: 128}} {
		m := NewFA2(g, FA2Defaults())
		var errs []float64
		left := 0
		for range 200 {
			runs := unlike(rnd, 8+rnd.IntN(120), rnd.IntN(3)*(16+rnd.IntN(700)))
			sh := g.fa2Shape(runs)
			c := &m.Params[sh.kernel]
			var some, all scratch
			g.fa2Schedule(runs, &sh, c, &some)
			if some.skipped == 0 {
				continue
			}
			left++
			all.heads = append(all.heads, 0)
			g.fa2Heads(runs, &sh, c, &all, 0, math.MaxInt)
			all.makespan = all.wheel.last
			all.reads.gather(all.wheel.spans, all.heads, sh.columns/g.KVHeads, c.Drift, all.makespan)
			us := sh.timeUS(c, &m.curves[sh.kernel], some.plan(), &some.reads)
			want := sh.timeUS(c, &m.curves[sh.kernel], all.plan(), &all.reads)
			errs = append(errs, math.Abs(math.Log(us/want)))
		}
		if left < 20 {
			t.Fatalf("%+v: heads left out of %d batches only", g, left)
		}
		slices.Sort(errs)
		if p50, p90 := errs[len(errs)/2], errs[len(errs)*9/10]; p50 > 0.01 || p90 > 0.03 {
			t.Errorf("%+v: %d batches: %.4f at the median, %.4f at the 90th percentile", g, len(errs), p50, p90)
		}
	}
}

// What a head reads again comes from a cache that is large enough, and from
// memory where it is too small; with a cache between, time lies between.
func TestFA2CacheHolds(t *testing.T) {
	g := Geometry{QueryHeads: 32, KVHeads: 8, SMs: 188}
	runs := GridRuns(nil, 64, 512, 128, 3000, true)
	at := func(mb float64) float64 {
		p := FA2Defaults()
		p[FA2Mixed].L2 = mb
		return NewFA2(g, p).TimeUS(runs)
	}
	last := math.Inf(1)
	for _, mb := range []float64{1, 50, 100, 200, 400, 1e4} {
		us := at(mb)
		if us > last*(1+1e-9) {
			t.Errorf("%g MB: %.1f us, less cache takes %.1f", mb, us, last)
		}
		last = us
	}
	if ratio := at(1) / at(1e4); ratio < 2 {
		t.Errorf("without cache %.2f times as long, want at least twice", ratio)
	}
}

// Reads keep their weight, whichever head they follow.
func TestReadsKeepWork(t *testing.T) {
	before := []span{{0, 4, 3}, {2, 5, 2}, {4, 9, 1}}
	now := []span{{4, 8, 2}, {5, 8, 1}, {6, 9, 3}}
	var r reads
	r.gather(append(slices.Clone(before), now...), []int{0, 3, 6}, 2, 0.02, 10)
	sum, want := 0.0, 0.0
	for k := range r.demand {
		for _, d := range r.demand[k] {
			sum += d * 10 / readBins
		}
	}
	for _, s := range append(slices.Clone(now), before...) {
		want += s.weight * (s.end - s.start)
	}
	if math.Abs(sum-want) > 1e-9*want {
		t.Errorf("demand %g, want %g", sum, want)
	}
}
