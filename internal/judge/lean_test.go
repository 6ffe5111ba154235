package judge

import (
	"slices"
	"testing"

	"github.com/layerprof/layerprof/internal/accuracy"
	"github.com/layerprof/layerprof/perfio"
)

// The lean plan's 915 attention shots and its skew shots, out of a full
// bundle, with the accurate rules, beat the full bundle under parity: t_skew
// of the mixed cases that the plan leaves out.
func TestLeanPlanAgainstFullParity(t *testing.T) {
	if testing.Short() {
		t.Skip("four folders, each fitted three times: half a minute and more under the race detector")
	}
	in := func(x int, list ...int) bool { return slices.Contains(list, x) }
	var p50, p90, p99 []float64
	for _, path := range []string{"perf/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16", "perf/RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16"} {
		b := openReference(t, path)
		for _, tp := range b.TPs {
			d, _ := accuracy.Normalize(b.Meta, accuracy.Data{Attention: tp.Attention, Skew: tp.Skew})
			var lean accuracy.Data
			for _, r := range d.Attention {
				doubled := func(x int) bool { return x == 0 || x >= 16 && x%16 == 0 && (x/16)&(x/16-1) == 0 }
				if (r.PrefillChunk == 0 || r.NDecode == 0) && doubled(r.PrefillChunk) && doubled(r.KVPrefill) && doubled(r.KVDecode) ||
					in(r.PrefillChunk, 16, 64, 512, 1024, 2048) && in(r.KVPrefill, 0, 512, 4096, 16384) &&
						in(r.NDecode, 1, 8, 16, 32, 64, 128) && in(r.KVDecode, 16, 1024, 2048, 4096, 8192, 16384) {
					lean.Attention = append(lean.Attention, r)
				}
			}
			var judged []perfio.SkewRow
			for _, r := range d.Skew {
				switch {
				case r.PC == 0:
				case r.N >= 16 && r.N*r.KVMean >= 32768 && in(r.PC, 16, 512) && in(r.KP, 0, 2048) && r.KVS >= 256:
					lean.Skew = append(lean.Skew, r)
				default:
					judged = append(judged, r)
				}
			}
			var got [3]accuracy.Stats
			for i, c := range []struct {
				rules accuracy.Rules
				data  accuracy.Data
			}{
				{parityRules{}, d}, {accurateRules{meta: b.Meta, degree: tp.Degree}, lean},
				{accurateRules{meta: b.Meta, degree: tp.Degree}, accuracy.Data{Attention: lean.Attention}},
			} {
				p, err := c.rules.Train(c.data)
				if err != nil {
					t.Fatal(err)
				}
				var e accuracy.Errors
				for _, r := range judged {
					us, ok := p.AttentionUS(accuracy.Query{PC: r.PC, KP: r.KP, N: r.N, NB: r.NB, KVBig: r.KVBig, KVSmall: r.KVS, KVMean: r.KVMean})
					e.Add(us, 0, ok, r.TSkewUS)
				}
				got[i] = e.Stats()
			}
			t.Logf("| %s | tp%d | %d + %d shots | full parity %.2f/%.1f/%.1f | lean accurate %.2f/%.1f/%.1f | without skew shots %.2f/%.1f/%.1f |", path, tp.Degree, len(lean.Attention), len(lean.Skew),
				got[0].P50, got[0].P90, got[0].P99, got[1].P50, got[1].P90, got[1].P99, got[2].P50, got[2].P90, got[2].P99)
			// Although the full parity has seen the very cases that it is judged
			// by.
			if got[1].P50 > got[0].P50 || got[1].P90 > got[0].P90 || got[1].P99 > got[0].P99 {
				t.Errorf("%s tp%d: lean + accurate %+v, full + parity %+v", path, tp.Degree, got[1], got[0])
			}
			p50, p90, p99 = append(p50, got[1].P50), append(p90, got[1].P90), append(p99, got[1].P99)
		}
	}
	for _, q := range []struct {
		name string
		errs []float64
		most float64
	}{{"p50", p50, 1.3}, {"p90", p90, 5.5}, {"p99", p99, 15}} {
		slices.Sort(q.errs)
		n := len(q.errs)
		if median := (q.errs[(n-1)/2] + q.errs[n/2]) / 2; median > q.most {
			t.Errorf("%s, median of %d folders: %.2f%%, want at most %g", q.name, n, median, q.most)
		}
	}
}
