package sweep_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/sweep"
	"github.com/layerprof/layerprof/perfio"
)

// sweeps are two made-up sweeps, whose skew times sum up some runs. Every
// second decode length of attention.csv lies between those of skew.csv.
func sweeps(runs float64, share bool) (attention []perfio.AttentionRow, skew []perfio.SkewRow) {
	us := func(pc, n, kd int) float64 { return 5 + 0.01*float64(pc) + 1e-3*float64(n*kd) }
	for _, pc := range []int{0, 16, 64} {
		for _, n := range []int{2, 4, 8} {
			for kd := 100; kd <= 1000; kd += 100 {
				if share || kd/100%2 == 1 {
					attention = append(attention, perfio.AttentionRow{PrefillChunk: pc, NDecode: n, KVDecode: kd, TimeUS: us(pc, n, kd)})
				}
				if kd/100%2 == 0 {
					r := perfio.SkewRow{PC: pc, N: n, NB: n / 2, KVBig: kd, KVS: kd / 2, KVMean: kd * 3 / 4}
					r.TMeanUS, r.TMaxUS, r.TSkewUS = runs*us(pc, n, kd*3/4), runs*us(pc, n, kd), runs*us(pc, n, kd*9/10)
					skew = append(skew, r)
				}
			}
		}
	}
	return attention, skew
}

func meta(t *testing.T, entries map[string]any) *perfio.Meta {
	t.Helper()
	m := &perfio.Meta{}
	for key, value := range entries {
		if err := m.Set(value, key); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestCompare(t *testing.T) {
	means := meta(t, map[string]any{"skew_statistic": perfio.SkewMean, "measurement_iterations": 3})
	sums := meta(t, map[string]any{"measurement_iterations": 3})
	silent := meta(t, map[string]any{"hardware": "X"})
	far := func(a []perfio.AttentionRow) []perfio.AttentionRow {
		return slices.DeleteFunc(a, func(r perfio.AttentionRow) bool { return r.KVDecode != 100 && r.KVDecode != 900 || r.NDecode != 8 })
	}
	for _, test := range []struct {
		name   string
		runs   float64
		share  bool
		far    bool
		meta   *perfio.Meta
		factor int
		from   string
	}{
		{"shared shapes, whatever meta.yaml says", 3, true, false, means, 3, sweep.FromShared},
		{"sums by meta.yaml", 3, false, false, sums, 3, sweep.FromMeta},
		{"means by meta.yaml", 1, false, false, means, 1, sweep.FromMeta},
		{"by meta.yaml alone", 3, false, true, sums, 3, sweep.FromMeta},
		{"sums, nothing recorded", 3, false, false, silent, 3, sweep.FromNearby},
		{"means, no meta.yaml", 1, false, false, nil, 1, sweep.FromNearby},
		{"meta.yaml is wrong", 3, false, false, means, 0, ""},
		{"between", 1.5, false, false, nil, 0, ""},
		{"nothing near, nothing recorded", 3, false, true, silent, 0, ""},
	} {
		attention, skew := sweeps(test.runs, test.share)
		if test.far {
			attention = far(attention)
		}
		got := sweep.Compare(test.meta, attention, skew)
		if got.Factor != test.factor || got.From != test.from || got.Known() != (test.factor > 0) || (got.Unknown == "") != got.Known() {
			t.Errorf("%s: %+v, want %d from %q", test.name, got, test.factor, test.from)
		}
		divided := got.Divide(skew)
		switch {
		case !got.Known():
			if divided != nil || !strings.Contains(got.String(), "not known") {
				t.Errorf("%s: %d rows, %q", test.name, len(divided), got)
			}
		case len(divided) != len(skew) || math.Abs(divided[0].TMaxUS*test.runs/skew[0].TMaxUS-1) > 1e-9:
			t.Errorf("%s: divided to %+v", test.name, divided[0])
		}
	}
}

// The sums of the reference bundles are found without the shapes that both
// files hold, also where meta.yaml says nothing.
func TestNearbyOfReference(t *testing.T) {
	for _, path := range []string{
		"perf/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16", "perf/RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16",
		"h200/perf/H200/meta-llama/Llama-3.1-8B/bf16",
	} {
		b, err := perfio.OpenBundle("../../../shared/reference/" + path)
		if err != nil {
			t.Skipf("reference data not present: %v", err)
		}
		for _, tp := range b.TPs {
			type shape struct{ pc, kp, n, kd int }
			both := map[shape]bool{}
			for _, r := range tp.Skew {
				both[shape{r.PC, r.KP, r.N, r.KVBig}] = true
			}
			rows := slices.DeleteFunc(slices.Clone(tp.Attention), func(r perfio.AttentionRow) bool {
				return both[shape{r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode}]
			})
			t.Logf("%s tp%d: %d of %d rows left", path, tp.Degree, len(rows), len(tp.Attention))
			if got := sweep.Compare(b.Meta, rows, tp.Skew); got.Shared != 0 || got.Factor != 3 || got.From != sweep.FromMeta {
				t.Errorf("%s tp%d: %+v", path, tp.Degree, got)
			}
			if got := sweep.Compare(nil, rows, tp.Skew); got.Factor != 3 || got.From != sweep.FromNearby {
				t.Errorf("%s tp%d: without meta.yaml %+v", path, tp.Degree, got)
			}
			means := sweep.Compare(b.Meta, rows, tp.Skew).Divide(tp.Skew)
			if got := sweep.Compare(nil, rows, means); got.Factor != 1 || got.From != sweep.FromNearby {
				t.Errorf("%s tp%d: means without meta.yaml %+v", path, tp.Degree, got)
			}
			// Columns exchanged: no number is right, and none is found in the rows.
			for i := range rows {
				rows[i].NDecode, rows[i].KVDecode = rows[i].KVDecode, rows[i].NDecode
			}
			if got := sweep.Compare(nil, rows, tp.Skew); got.Known() && got.Shared == 0 {
				t.Errorf("%s tp%d: columns exchanged: %+v", path, tp.Degree, got)
			}
		}
	}
}
