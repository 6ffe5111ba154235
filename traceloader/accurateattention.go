package traceloader

import (
	"math"
	"slices"
	"sync"

	"github.com/layerprof/layerprof/internal/attnmodel"
	"github.com/layerprof/layerprof/perfio"
)

// accurateAttention answers by a model of the kernel's schedule and what the
// measurements leave over of it. Lists go through the model itself; numbers
// through tables that it filled.
type accurateAttention struct {
	predictor *attnmodel.Predictor
	baked     *attnmodel.Baked // nil where straight lines are best
	parity    attentionRules
	grid      *grid
	alpha     *alphaTable // measured buckets count in lookups by numbers
	first     bool        // prefill first, for lookups by numbers
	geometry  attnmodel.Geometry
	degree    int
}

// runPool holds the runs of one lookup.
var runPool = sync.Pool{New: func() any {
	r := make([]attnmodel.Run, 0, 1024)
	return &r
}}

// newAccurateAttention calibrates one tp folder; nil where nothing was
// measured that could be used.
func newAccurateAttention(t *Table, b *perfio.Bundle, f *tpTable, rows *perfio.TP, stored *Calibration) (a *accurateAttention, warnings []string) {
	c, unused := attentionConfig(t, b, *rows)
	a = &accurateAttention{parity: f.attention, grid: f.grid, alpha: f.alpha, first: prefillFirst(b.Meta), geometry: c.Geometry, degree: f.degree}
	if stored != nil {
		var stale string
		c.Stored, stale = stored.tp(f.degree, c.Hash())
		warnings = append(warnings, stale)
	}
	warnings = slices.DeleteFunc(append(warnings, unused), func(w string) bool { return w == "" })
	c.Linear = a.lines
	a.predictor = attnmodel.New(*c)
	if a.predictor == nil {
		return nil, warnings
	}
	if a.predictor.Basis() != attnmodel.Linear {
		a.baked = attnmodel.Bake(a.predictor, axesOf(rows), a.first, 2)
	}
	return a, warnings
}

func axesOf(rows *perfio.TP) attnmodel.Axes {
	return attnmodel.Axes{
		PC: distinct(rows.Attention, func(r *perfio.AttentionRow) int { return r.PrefillChunk }),
		KP: distinct(rows.Attention, func(r *perfio.AttentionRow) int { return r.KVPrefill }),
		N:  distinct(rows.Attention, func(r *perfio.AttentionRow) int { return r.NDecode }),
		KD: distinct(rows.Attention, func(r *perfio.AttentionRow) int { return r.KVDecode }),
	}
}

func (a *accurateAttention) calibration() TPCalibration {
	c := a.predictor.Calibration()
	return TPCalibration{TP: a.degree, QueryHeads: a.geometry.QueryHeads, KVHeads: a.geometry.KVHeads, SMs: a.geometry.SMs, Attention: &c}
}

// lines is the answer of straight lines, in microseconds. Several chunks count
// as one of all their tokens, over the history that a token sees on average.
func (a *accurateAttention) lines(runs []attnmodel.Run) (float64, bool) {
	var tokens, history, n, sum, longest int
	for _, r := range runs {
		if r.New > 1 {
			tokens += r.Count * r.New
			history += r.Count * r.New * r.History
			continue
		}
		n += r.Count
		sum += r.Count * r.History
		longest = max(longest, r.History)
	}
	if tokens > 0 {
		history /= tokens
	}
	if n > 0 {
		sum /= n
	}
	ns, ok := a.parity.uniform(tokens, history, n, sum)
	return float64(ns) / 1000, ok
}

func microseconds(us float64) (int64, bool) {
	if math.IsNaN(us) || us <= 0 {
		return 0, false
	}
	return wholeNS(us * 1000), true
}

// numbers are coordinates as a kernel would get them: a chunk of one token is
// one more decode.
func numbers(pc, kp, nd, kd int) (int, int, int, int) {
	pc, kp, nd, kd = max(pc, 0), max(kp, 0), max(nd, 0), max(kd, 0)
	if pc == 1 {
		if nd == 0 {
			return 0, 0, 1, kp
		}
		return 0, 0, nd + 1, (kd*nd + kp) / (nd + 1)
	}
	return pc, kp, nd, kd
}

func (a *accurateAttention) uniform(pc, kp, nd, kd int) (int64, bool) {
	pc, kp, nd, kd = numbers(pc, kp, nd, kd)
	if pc|nd == 0 {
		return 0, false
	}
	if a.baked == nil {
		return a.parity.uniform(pc, kp, nd, kd)
	}
	return microseconds(a.baked.UniformUS(pc, kp, nd, kd))
}

func (a *accurateAttention) skew(pc, kp, nd, mean, longest, shortest int) (int64, bool) {
	if nd <= 1 || longest <= mean || pc == 1 {
		return a.uniform(pc, kp, nd, mean)
	}
	if a.baked == nil {
		return a.parity.skew(pc, kp, nd, mean, longest, shortest)
	}
	pc, kp, mean = max(pc, 0), max(kp, 0), max(mean, 0)
	if a.alpha != nil {
		if alpha, status := a.alpha.lookup(pc, kp, nd, mean, longest, shortest); status == Measured {
			t := a.baked.UniformUS(pc, kp, nd, mean)
			return microseconds(t + min(max(alpha, 0), 1)*max(0, a.baked.UniformUS(pc, kp, nd, longest)-t))
		}
	}
	return microseconds(a.baked.SkewUS(max(pc, 0), max(kp, 0), nd, max(mean, 0), longest, max(shortest, 0)))
}

func (a *accurateAttention) batch(requests []perfio.Request) (int64, bool) {
	us, _ := a.estimate(requests, false)
	return microseconds(us)
}

// estimate is the time in microseconds and, where asked for, its sigma.
func (a *accurateAttention) estimate(requests []perfio.Request, withSigma bool) (us, sigma float64) {
	runs := runPool.Get().(*[]attnmodel.Run)
	*runs = attnmodel.AppendRuns((*runs)[:0], requests)
	us, sigma = a.predictor.EstimateUS(*runs, withSigma)
	runPool.Put(runs)
	return us, sigma
}

func (a *accurateAttention) explainUniform(pc, kp, nd, kd int) (int64, Answer) {
	return a.explainSkew(pc, kp, nd, kd, kd, kd)
}

func (a *accurateAttention) explainSkew(pc, kp, nd, mean, longest, shortest int) (int64, Answer) {
	ns, ok := a.skew(pc, kp, nd, mean, longest, shortest)
	if !ok {
		return 0, Answer{}
	}
	answer := a.status(pc, kp, nd, mean)
	skewed := longest > mean && nd > 1
	if skewed {
		answer = answer.merge(a.status(pc, kp, nd, longest))
	}
	if skewed || a.baked != nil {
		answer.Status = worse(answer.Status, Interpolated) // by tables, if not by straight lines
	}
	runs := runPool.Get().(*[]attnmodel.Run)
	pc, kp, nd, mean = numbers(pc, kp, nd, mean)
	nb := 0
	if longest > shortest && nd > 1 {
		nb = min(max((mean-shortest)*nd/(longest-shortest), 1), nd-1)
	}
	if nb > 0 {
		*runs = gridRuns((*runs)[:0], pc, kp, nb, longest, nd, shortest, a.first)
	} else {
		*runs = gridRuns((*runs)[:0], pc, kp, nd, mean, nd, mean, a.first)
	}
	_, answer.Sigma = a.predictor.EstimateUS(*runs, true)
	runPool.Put(runs)
	answer.Sigma = math.Hypot(answer.Sigma, a.grid.beyondSigma(pc, kp, nd, longest))
	if a.baked != nil {
		answer.Sigma = math.Hypot(answer.Sigma, a.baked.Loss(pc, nd, nb > 0))
	}
	return ns, answer
}

func (a *accurateAttention) explainBatch(requests []perfio.Request) (int64, Answer) {
	us, sigma := a.estimate(requests, true)
	ns, ok := microseconds(us)
	if !ok {
		return 0, Answer{}
	}
	b := NewBatch(requests)
	chunks, history := 0, 0 // the longest of the chunks'
	for _, r := range requests {
		if r.NewTokens > 1 {
			chunks++
			history = max(history, r.KVHistory)
		}
	}
	answer := a.status(b.PrefillChunk, history, b.NDecode, b.KVDecodeMean)
	if b.KVDecodeMax > b.KVDecodeMean {
		answer = answer.merge(a.status(b.PrefillChunk, history, b.NDecode, b.KVDecodeMax))
	}
	if chunks > 1 || b.KVDecodeMax > b.KVDecodeMin {
		answer.Status = worse(answer.Status, Interpolated)
	}
	answer.Sigma = math.Hypot(sigma, a.grid.beyondSigma(b.PrefillChunk, history, b.NDecode, b.KVDecodeMax))
	return ns, answer
}

// status says where numbers stand to what was measured. Under straight lines
// that is what parity says. A model borrows nothing: within the axes, what was
// not measured is interpolated, and beyond them it is extrapolated.
func (a *accurateAttention) status(pc, kp, nd, kd int) Answer {
	answer := a.grid.answer(pc, kp, nd, kd)
	if a.baked == nil {
		return answer
	}
	hole := answer.BorrowedCorners > 0
	answer.BorrowedCorners = 0
	for _, s := range [...]*Status{&answer.PrefillChunk, &answer.KVPrefill, &answer.NDecode, &answer.KVDecode} {
		if *s == Borrowed {
			*s, hole = Interpolated, true
		}
	}
	answer.Status = max(answer.PrefillChunk, answer.KVPrefill, answer.NDecode, answer.KVDecode, Measured)
	if hole {
		answer.Status = worse(answer.Status, Interpolated)
	}
	return answer
}
