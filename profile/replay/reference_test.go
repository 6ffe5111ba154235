package replay

import (
	"context"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// A plan of a reference bundle's own rows is answered row by row with the times
// that the files have.
func TestReplayOfReferenceBundles(t *testing.T) {
	for _, dir := range referenceBundles(t) {
		s := open(t, Options{Bundle: dir})
		b := s.bundle
		arch, err := perfio.LoadArchitecture(b.Meta.Architecture())
		if err != nil {
			t.Fatal(err)
		}
		model, err := perfio.LoadModelConfig(b.Meta.Model())
		if err != nil {
			t.Fatal(err)
		}
		var tps []int
		for _, tp := range b.TPs {
			tps = append(tps, tp.Degree)
		}
		for i := range b.TPs {
			tp := &b.TPs[i]
			d := s.NewDriver()
			e, err := d.Boot(context.Background(), profile.EngineSpec{
				Model: model, Architecture: arch, TP: tp.Degree, DType: "bfloat16", MaxNumBatchedTokens: 2048, MaxNumSeqs: 256,
			})
			if err != nil {
				t.Fatal(err)
			}
			plan, err := profile.NewPlanFromBundle(b, e.Limits, arch, profile.PlanOptions{TPs: tps})
			if err != nil {
				t.Fatal(err)
			}
			want := rowCounts(tp, arch, tp.Degree == tps[0])
			got := map[profile.Category]int{}
			for _, c := range plan.TPs[i].Categories {
				for j, shot := range c.Shots {
					o := profile.MeasureOptions{Iterations: 2, Layers: c.LayersOf(j)}
					r := one(t, d, o, shot)
					if r.Status != profile.OK {
						t.Fatalf("%s tp%d %s: %s %s", dir, tp.Degree, shown(&shot), r.Status, r.Message)
					}
					got[c.Category] += len(r.Layers)
				}
			}
			for category, n := range want {
				if got[category] != n {
					t.Errorf("%s tp%d %s: %d layer times, want %d", dir, tp.Degree, category, got[category], n)
				}
			}
		}
	}
}

// rowCounts is how many times a plan of the folder's own rows asks for; the
// layers that do not change with the degree are asked for at the first only.
func rowCounts(tp *perfio.TP, arch *perfio.Architecture, first bool) map[profile.Category]int {
	stable := map[string]bool{}
	for _, e := range arch.Catalog {
		stable[e.Layer] = e.TPStable
	}
	n := map[profile.Category]int{profile.Attention: len(tp.Attention), profile.MoE: len(tp.MoE), profile.Skew: 3 * len(tp.Skew)}
	for _, r := range tp.Dense {
		if first || !stable[r.Layer] {
			n[profile.Dense]++
		}
	}
	for _, r := range tp.PerSequence {
		if first || !stable[r.Layer] {
			n[profile.PerSequence]++
		}
	}
	return n
}
