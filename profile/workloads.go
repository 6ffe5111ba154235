package profile

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
)

// StepWorkloads are the lists of requests whose steps make step.csv, sized by
// the limits of the engine that serves them. The same limits and seed give the
// same lists.
//
//	alone   prefills of growing size one after the other, alone and several at once
//	ladder  one more request every other step, some of which end soon, with quiet
//	        stretches between: batches of all sizes, prefills beside them
//	short   as many requests as the engine takes, of few tokens
//	long    long prompts, in chunks beside the decodes of those before
func StepWorkloads(limits Limits, seed int64) []Workload {
	b := workloadBuilder{limits: limits, seed: seed}
	return []Workload{b.alone(), b.ladder(), b.short(), b.long()}
}

// WarmUp is served before anything counts, until every kernel of the usual
// shapes is compiled and loaded.
func WarmUp(limits Limits, seed int64) Workload {
	b := workloadBuilder{limits: limits, seed: seed}
	w := b.start("warm")
	for range 8 {
		w.add(500, 20, 0)
	}
	for i, tokens := range []int{16, 100, 700, 1500, 2048, 3000} {
		w.add(tokens, 4, 30+8*i)
	}
	return w.done(0)
}

// ServeWarmUp has a fresh engine serve the warm-up, more than once: the first
// round compiles, the second finds what the first left out.
func ServeWarmUp(ctx context.Context, driver StepDriver, limits Limits, seed int64) error {
	for range warmUps {
		if _, err := driver.Serve(ctx, WarmUp(limits, seed), nil); err != nil {
			return err
		}
	}
	return nil
}

// defaults where an engine does not say its limits.
const (
	guessedBatchedTokens = 2048
	guessedSeqs          = 256
	guessedModelLen      = 8192
)

type workloadBuilder struct {
	limits Limits
	seed   int64
}

func (b *workloadBuilder) start(name string) *workload {
	l := b.limits
	setDefault(&l.MaxNumBatchedTokens, guessedBatchedTokens)
	setDefault(&l.MaxNumSeqs, guessedSeqs)
	setDefault(&l.MaxModelLen, guessedModelLen)
	l.BlockSize = max(l.BlockSize, 1)
	// The four lists draw from streams of their own, so that one may change.
	stream := uint64(0)
	for _, c := range name {
		stream = stream<<8 | uint64(c)
	}
	return &workload{limits: l, out: Workload{Name: name, Seed: b.seed}, rng: rand.New(rand.NewPCG(uint64(b.seed), stream))}
}

// workload is a list in the making that stays within the engine's limits.
type workload struct {
	limits Limits
	out    Workload
	rng    *rand.Rand
	slots  int // KV slots that the requests take at most, all at once
}

// cacheShare of the KV cache is what requests that run together may fill: beyond
// it the engine would preempt some, which is not what the workloads are about.
const cacheShare = 0.8

// add takes a request in, cut to what the engine's longest sequence is.
func (w *workload) add(prompt, output, at int) {
	l := &w.limits
	output = max(1, min(output, l.MaxModelLen/2))
	prompt = max(1, min(prompt, l.MaxModelLen-output-1))
	if l.CacheTokens > 0 {
		prompt = max(1, min(prompt, int(cacheShare*float64(l.CacheTokens))-output))
	}
	w.out.Requests = append(w.out.Requests, WorkloadRequest{PromptTokens: prompt, OutputTokens: output, AtStep: &at})
}

// fits says whether there is room for one more request that will grow to so many
// tokens beside all that are there, and takes it. There is for the first one,
// which add cuts to what fits.
func (w *workload) fits(tokens int) bool {
	l := &w.limits
	tokens = (tokens + l.BlockSize - 1) / l.BlockSize * l.BlockSize
	n := len(w.out.Requests)
	if n > 0 && (n >= l.MaxNumSeqs || l.CacheTokens > 0 && float64(w.slots+tokens) > cacheShare*float64(l.CacheTokens)) {
		return false
	}
	w.slots += tokens
	return true
}

func (w *workload) done(steps int) Workload {
	w.out.Steps = steps
	return w.out
}

// between is a random integer from lo to hi.
func (w *workload) between(lo, hi int) int { return lo + w.rng.IntN(max(hi-lo, 0)+1) }

// logBetween is one whose logarithm is spread evenly.
func (w *workload) logBetween(lo, hi int) int {
	a, b := math.Log(float64(lo)), math.Log(float64(max(hi, lo)))
	return int(math.Round(math.Exp(a + w.rng.Float64()*(b-a))))
}

func (b *workloadBuilder) alone() Workload {
	w := b.start("alone")
	at, mnbt := 0, w.limits.MaxNumBatchedTokens
	for range 2 {
		for _, tokens := range []int{16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048} {
			if tokens <= mnbt && tokens+4 <= w.limits.MaxModelLen {
				w.add(tokens, 3, at)
				at += 5
			}
		}
	}
	for _, group := range []struct{ n, tokens int }{{2, 500}, {4, 200}, {8, 128}, {3, 600}, {16, 64}, {2, 1000}} {
		n := min(group.n, w.limits.MaxNumSeqs)
		if n*group.tokens > mnbt+group.tokens { // at most two steps of prefill
			continue
		}
		for range n {
			w.add(group.tokens, 3, at)
		}
		at += 5
	}
	return w.done(0)
}

func (b *workloadBuilder) ladder() Workload {
	const every, burst, quiet, most = 2, 16, 6, 200
	w := b.start("ladder")
	count := min(most, w.limits.MaxNumSeqs)
	total := count*every + count/burst*quiet
	longest := min(2048, w.limits.MaxModelLen/2)
	at := 0
	for i := range count {
		prompt, output := w.logBetween(min(32, longest), longest), total+200
		if i%3 == 2 {
			output = w.between(8, 64)
		}
		if !w.fits(prompt + min(output, total+6-at)) {
			break
		}
		w.add(prompt, output, at)
		at += every
		if i%burst == burst-1 {
			at += quiet
		}
	}
	return w.done(at + 6)
}

func (b *workloadBuilder) short() Workload {
	const group, apart = 8, 6
	w := b.start("short")
	count := w.limits.MaxNumSeqs
	total := count/group*apart + 100
	at := 0
	for i := range count {
		prompt := w.between(8, 64)
		if !w.fits(prompt + total) {
			break
		}
		w.add(prompt, total, at)
		if i%group == group-1 {
			at += apart
		}
	}
	return w.done(at + 8)
}

func (b *workloadBuilder) long() Workload {
	const most, output, apart = 32, 4000, 6
	w := b.start("long")
	hi := min(8000, w.limits.MaxModelLen*5/8)
	lo := min(3000, hi*3/8)
	at := 0
	for range most {
		prompt := w.between(lo, hi)
		if !w.fits(prompt + prompt/4) { // what is decoded until the end is far less
			break
		}
		w.add(prompt, output, at)
		at += (prompt+w.limits.MaxNumBatchedTokens-1)/w.limits.MaxNumBatchedTokens + apart
	}
	return w.done(at + 4)
}

// PlannedSteps is about how many steps a workload takes: what ends it, or else
// the last arrival and what that request needs.
func (w *Workload) PlannedSteps() int {
	if w.Steps > 0 {
		return w.Steps
	}
	steps := 0
	for _, q := range w.Requests {
		if q.AtStep != nil {
			steps = max(steps, *q.AtStep+q.OutputTokens)
		}
	}
	return steps
}

// check says what a driver must refuse.
func (w *Workload) check() error {
	byStep := 0
	for i, q := range w.Requests {
		if q.PromptTokens < 1 || q.OutputTokens < 1 || !(q.ArrivalUS >= 0) {
			return fmt.Errorf("request %d: found %d prompt and %d output tokens at %v us, expected at least 1, 1 and 0", i, q.PromptTokens, q.OutputTokens, q.ArrivalUS)
		}
		if q.AtStep != nil {
			byStep++
		}
	}
	switch {
	case len(w.Requests) == 0:
		return fmt.Errorf("found no requests")
	case byStep != 0 && byStep != len(w.Requests):
		return fmt.Errorf("found at_step in %d of %d requests, expected it in all or in none", byStep, len(w.Requests))
	}
	return nil
}
