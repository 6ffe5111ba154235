package traceloader_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// Where nothing says how many runs a time of skew.csv sums up, the accurate
// rules answer as without the file, and say so.
func TestAccurateLeavesSkewOfUnknownUnit(t *testing.T) {
	b := bundletest.Bundle()
	if w := openAccurate(t, b).Warnings(); slices.ContainsFunc(w, func(s string) bool { return strings.Contains(s, "not known") }) {
		t.Fatalf("warnings %q where meta.yaml says means", w)
	}
	b.Meta.Delete("skew_statistic")
	b.Meta.Delete("measurement_iterations")
	with := openAccurate(t, b)
	if w := with.Warnings(); len(w) < 2 || !strings.HasPrefix(w[len(w)-2], "tp1: skew.csv and attention.csv share no shape") || !strings.HasPrefix(w[len(w)-1], "tp2: ") {
		t.Errorf("warnings %q", w)
	}
	for i := range b.TPs {
		b.TPs[i].Skew = nil
	}
	without := openAccurate(t, b)
	for _, r := range bundletest.Bundle().TPs[0].Skew {
		runs := decodesOf(r.KVBig)
		for range r.N - r.NB {
			runs = append(runs, perfio.Request{NewTokens: 1, KVHistory: r.KVS})
		}
		a, _ := with.Attention(1)
		c, _ := without.Attention(1)
		x, _ := a.BatchLatencyNS(runs)
		y, _ := c.BatchLatencyNS(runs)
		if x != y {
			t.Errorf("n %d, kvs %d: %d ns with, %d ns without skew.csv", r.N, r.KVS, x, y)
		}
	}
}

// A reference bundle without the shapes that both files hold: its skew times
// are still sums of three.
func TestAccurateWithoutSharedShapes(t *testing.T) {
	b, err := perfio.OpenBundle("../../shared/reference/perf/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16")
	if err != nil {
		t.Skipf("reference data not present: %v", err)
	}
	tp := b.TPs[0]
	type shape struct{ pc, kp, n, kd int }
	both := map[shape]bool{}
	for _, r := range tp.Skew {
		both[shape{r.PC, r.KP, r.N, r.KVBig}] = true
	}
	tp.Attention = slices.DeleteFunc(tp.Attention, func(r perfio.AttentionRow) bool {
		return both[shape{r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode}]
	})
	b.Dir, b.TPs = "", []perfio.TP{tp}
	table, err := traceloader.New(b, traceloader.Options{Rules: traceloader.Accurate, Lenient: true})
	if err != nil {
		t.Fatal(err)
	}
	h, _ := table.Attention(1)
	var errors []float64
	for i := 0; i < len(tp.Skew); i += 10 {
		r := tp.Skew[i]
		var list []perfio.Request
		if r.PC > 0 {
			list = append(list, perfio.Request{NewTokens: r.PC, KVHistory: r.KP})
		}
		for n := range r.N {
			kv := r.KVS
			if n < r.NB {
				kv = r.KVBig
			}
			list = append(list, perfio.Request{NewTokens: 1, KVHistory: kv})
		}
		ns, _ := h.BatchLatencyNS(list)
		errors = append(errors, 100*math.Abs(float64(ns)/1000*3/r.TSkewUS-1))
	}
	slices.Sort(errors)
	p50 := errors[len(errors)/2]
	t.Logf("t_skew by lists: p50 %.2f%% of %d", p50, len(errors))
	if p50 > 3 {
		t.Errorf("p50 %.1f%%, want at most 3%%", p50)
	}
}
