package traceloader_test

import (
	"math"
	"testing"

	"github.com/layerprof/layerprof/internal/attnmodel"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// madeUpAttention is a bundle of FlashAttention-3 with a hole: no chunk of 1024
// stands beside 64 decodes.
func madeUpAttention(t *testing.T) *perfio.Bundle {
	t.Helper()
	kernel := attnmodel.NewFA3(attnmodel.Geometry{QueryHeads: 32, KVHeads: 8, SMs: 132}, attnmodel.FA3Defaults())
	rows := madeUpGrid(func(pc, kp, n, kd int) float64 { return kernel.TimeUS(attnmodel.GridRuns(nil, pc, kp, n, kd, true)) })
	var most perfio.AttentionRow
	for _, r := range rows {
		most.PrefillChunk, most.KVPrefill = max(most.PrefillChunk, r.PrefillChunk), max(most.KVPrefill, r.KVPrefill)
		most.NDecode, most.KVDecode = max(most.NDecode, r.NDecode), max(most.KVDecode, r.KVDecode)
	}
	kept := rows[:0]
	for _, r := range rows {
		if r.PrefillChunk != most.PrefillChunk || r.NDecode != most.NDecode {
			kept = append(kept, r)
		}
	}
	return &perfio.Bundle{
		Meta: parseMeta(t, "gpu: NVIDIA H200\nmodel: meta-llama/Llama-3.1-8B\nattention_backend: FlashAttention 3\n"),
		TPs:  []perfio.TP{{Degree: 1, Attention: kept}},
	}
}

// What an answer says of itself: only a batch that was measured counts as
// measured, and the longest request decides whether the range was left.
func TestAccurateStatus(t *testing.T) {
	b := madeUpAttention(t)
	rows := b.TPs[0].Attention
	axis := func(of func(perfio.AttentionRow) int) (most int) {
		for _, r := range rows {
			most = max(most, of(r))
		}
		return most
	}
	pc, kp := axis(func(r perfio.AttentionRow) int { return r.PrefillChunk }), axis(func(r perfio.AttentionRow) int { return r.KVPrefill })
	n, kd := axis(func(r perfio.AttentionRow) int { return r.NDecode }), axis(func(r perfio.AttentionRow) int { return r.KVDecode })
	alike := func(chunk, history, n, kd int) []perfio.Request {
		var out []perfio.Request
		if chunk > 0 {
			out = append(out, perfio.Request{NewTokens: chunk, KVHistory: history})
		}
		for range n {
			out = append(out, perfio.Request{NewTokens: 1, KVHistory: kd})
		}
		return out
	}
	h, _ := openAccurate(t, b).Attention(1)
	refusing, err := traceloader.New(b, traceloader.Options{Rules: traceloader.Accurate, Refuse: true})
	if err != nil {
		t.Fatal(err)
	}
	refused, _ := refusing.Attention(1)
	for name, test := range map[string]struct {
		batch []perfio.Request
		want  traceloader.Status
	}{
		"a measured batch":       {alike(0, 0, n, kd), traceloader.Measured},
		"between":                {alike(0, 0, n, kd-1), traceloader.Interpolated},
		"a hole":                 {alike(pc, kp, n, kd), traceloader.Interpolated},
		"one is too long":        {append(alike(0, 0, 3, 16), perfio.Request{NewTokens: 1, KVHistory: 2 * kd}), traceloader.Extrapolated},
		"one history too long":   {[]perfio.Request{{NewTokens: 16, KVHistory: 2 * kp}, {NewTokens: 16}, {NewTokens: 16}}, traceloader.Extrapolated},
		"beyond what is counted": {[]perfio.Request{{NewTokens: 1, KVHistory: math.MaxInt}}, traceloader.Extrapolated},
	} {
		ns, a := h.ExplainBatch(test.batch)
		if a.Status != test.want || ns < 1 || !(a.Sigma > 0) {
			t.Errorf("%s: %d ns %+v, want %v", name, ns, a, test.want)
		}
		if _, ok := refused.BatchLatencyNS(test.batch); ok != (test.want != traceloader.Extrapolated) {
			t.Errorf("%s: answered %t where extrapolating is refused", name, ok)
		}
	}
	// Numbers are answered by tables, so nothing is as it was measured.
	if _, a := h.Explain(0, 0, n, kd); a.Status != traceloader.Interpolated {
		t.Errorf("by numbers: %+v", a)
	}
	_, list := h.ExplainBatch(alike(64, 0, 3, 300))
	if _, a := h.Explain(64, 0, 3, 300); !(a.Sigma >= list.Sigma) {
		t.Errorf("sigma by numbers %g, by the list %g", a.Sigma, list.Sigma)
	}
	if _, ok := refused.SkewLatencyNS(0, 0, 2, kd, 2*kd, 10); ok {
		t.Error("the longest is beyond the range, and that is answered")
	}
	// The further beyond the range, the less is known.
	for at, last := 1, 0.0; at < 1<<12; at *= 8 {
		if _, a := h.ExplainBatch(alike(0, 0, 2, at*kd)); !(a.Sigma > last) {
			t.Errorf("%d tokens of history: sigma %g, at an eighth of it %g", at*kd, a.Sigma, last)
		} else {
			last = a.Sigma
		}
	}
	// More than any engine holds costs no more time or memory.
	for _, x := range []int{1 << 20, 1 << 26, math.MaxInt / 2} {
		if ns, a := h.Explain(0, 0, x, 1000); ns < 1 || a.Status != traceloader.Extrapolated {
			t.Errorf("%d decodes: %d ns %+v", x, ns, a)
		}
		if ns, a := h.Explain(x, x, x, x); ns < 1 || a.Status != traceloader.Extrapolated {
			t.Errorf("%d everywhere: %d ns %+v", x, ns, a)
		}
	}
}

// A memo's lines do not cross the places where a kernel's time jumps: on real
// bundles it stays with the handle.
func TestDecodeMemoOnReferences(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute and more under the race detector")
	}
	for kernel, path := range accurateBundles {
		h, _ := openAccurate(t, accurateReference(t, path)).Attention(1)
		for _, list := range [][]perfio.Request{decodesOf(81), decodesOf(1000, 90), decodesOf(40, 700, 1300, 2200, 3100, 4400, 500)} {
			m := traceloader.NewDecodeMemo(h)
			n := len(list)
			for step := range 300 {
				got, _ := m.LatencyNS(list)
				want, _ := h.BatchLatencyNS(list)
				if e := math.Abs(float64(got)/float64(want) - 1); e > 0.05 {
					t.Errorf("%s, %d requests, step %d: %d ns, the handle says %d", kernel, n, step, got, want)
					break
				}
				for i := range list {
					list[i].KVHistory++
				}
			}
		}
	}
}
