package bundlemerge_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/internal/bundlemerge"
	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
)

// A bundle cut in three, by degree, table and row, comes back whole.
func TestParts(t *testing.T) {
	whole := bundletest.Bundle()
	a, b, c := bundletest.Bundle(), bundletest.Bundle(), bundletest.Bundle()
	a.TPs = a.TPs[:1]
	a.TPs[0].Attention, a.TPs[0].Skew, a.TPs[0].SkewFit = a.TPs[0].Attention[:10], nil, nil
	a.Meta.Delete("skew_fit")
	b.TPs = []perfio.TP{{Degree: 1, Attention: b.TPs[0].Attention[5:]}}
	c.TPs[0] = perfio.TP{Degree: 1, Skew: c.TPs[0].Skew, SkewFit: c.TPs[0].SkewFit, Steps: c.TPs[0].Steps}
	a.TPs[0].Steps = nil
	for m, sizes := range map[*perfio.Meta][]int{a.Meta: {7}, c.Meta: {1, 2}} { // a's are of steps that it lost
		if err := m.Set(sizes, "steps", "per_tp", "1", perfio.ModeEagerSync, "capture_sizes"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := bundlemerge.Merge([]*perfio.Bundle{a, b, c}, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Conflicts) != 0 || len(got.Notes) != 0 {
		t.Errorf("conflicts %+v, notes %q", got.Conflicts, got.Notes)
	}
	if diff := cmp.Diff(whole.TPs, got.Bundle.TPs); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	if !slices.Equal(got.Bundle.Meta.TPDegrees(), []int{1, 2}) || got.Bundle.Meta.SkewFit() == nil || !got.Bundle.Meta.SkewFit().Enabled {
		t.Errorf("degrees %v, fit %+v", got.Bundle.Meta.TPDegrees(), got.Bundle.Meta.SkewFit())
	}
	if sizes := got.Bundle.Meta.CaptureSizes(1, perfio.ModeEagerSync); !slices.Equal(sizes, []int{1, 2}) {
		t.Errorf("capture sizes %v, expected those of the part with the steps", sizes)
	}
	if err := perfio.WriteBundle(t.TempDir(), got.Bundle); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(bundletest.Bundle().TPs[0].Attention[:10], a.TPs[0].Attention); diff != "" {
		t.Errorf("a part was changed:\n%s", diff)
	}
}

func TestConflicts(t *testing.T) {
	a, b := bundletest.Bundle(), bundletest.Bundle()
	b.Dir = "b"
	b.TPs[0].Attention[7].TimeUS *= 1.5
	got, err := bundlemerge.Merge([]*perfio.Bundle{a, b}, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, c := range got.Conflicts {
		if c.Rows == 1 && c.Line == 9 && c.Of == "b" && c.TP == 1 && c.Table == "attention" && c.AUS == a.TPs[0].Attention[7].TimeUS {
			rows++
		}
	}
	if rows != 1 {
		t.Errorf("the row is listed %d times: %+v", rows, got.Conflicts)
	}
	if got.Bundle.TPs[0].Attention[7] != a.TPs[0].Attention[7] {
		t.Error("the second part's row was taken")
	}
	if len(got.Notes) != 1 || got.Bundle.TPs[0].SkewFit != nil || got.Bundle.Meta.SkewFit().Enabled {
		t.Errorf("two sweeps: notes %q, fit %+v", got.Notes, got.Bundle.Meta.SkewFit())
	}
	b.TPs[0].Attention[7].TimeUS = a.TPs[0].Attention[7].TimeUS * 1.005
	if got, err = bundlemerge.Merge([]*perfio.Bundle{a, b}, 0, false); err != nil || len(got.Conflicts) != 0 {
		t.Errorf("within the noise: %v, %+v", err, got.Conflicts)
	}
}

// Mixed batches that ran in another order are other batches, whether or not a
// part says so; a part without any may say what it likes.
func TestOrder(t *testing.T) {
	part := func(dir, order string, mixed bool) *perfio.Bundle {
		b := bundletest.Bundle()
		b.Dir = dir
		if order != "" {
			if err := b.Meta.Set(order, "order"); err != nil {
				t.Fatal(err)
			}
		}
		if !mixed {
			for i := range b.TPs {
				b.TPs[i].Attention = slices.DeleteFunc(b.TPs[i].Attention, func(r perfio.AttentionRow) bool { return r.PrefillChunk > 0 && r.NDecode > 0 })
			}
		}
		return b
	}
	engine, silent, first := part("engine", "engine", true), part("silent", "", true), part("first", "prefill-first", true)
	plainEngine, plainSilent := part("plain", "engine", false), part("plain", "", false)
	for _, test := range []struct {
		parts   []*perfio.Bundle
		refused bool
		order   string
	}{
		{[]*perfio.Bundle{engine, silent}, true, ""},
		{[]*perfio.Bundle{silent, engine}, true, ""},
		{[]*perfio.Bundle{engine, first}, true, ""},
		{[]*perfio.Bundle{plainSilent, silent, engine}, true, ""},
		{[]*perfio.Bundle{silent, first}, false, ""},
		{[]*perfio.Bundle{plainSilent, engine}, false, "engine"},
		{[]*perfio.Bundle{plainEngine, silent}, false, ""},
		{[]*perfio.Bundle{plainEngine, plainSilent}, false, "engine"},
	} {
		got, err := bundlemerge.Merge(test.parts, 0, false)
		switch {
		case test.refused:
			if err == nil || !strings.Contains(err.Error(), ": order: found ") {
				t.Errorf("%s, %s: %v, expected an error of the order", test.parts[0].Dir, test.parts[1].Dir, err)
			}
		case err != nil || got.Bundle.Meta.Text("order") != test.order:
			t.Errorf("%s, %s: %v, want order %q", test.parts[0].Dir, test.parts[1].Dir, err, test.order)
		}
	}
}

func TestOtherSetup(t *testing.T) {
	for _, path := range [][]string{{"gpu"}, {"variant"}, {"engine_effective", "max_num_seqs"}, {"origin"}} {
		a, b := bundletest.Bundle(), bundletest.Bundle()
		for i, m := range []*perfio.Meta{a.Meta, b.Meta} {
			value := any([]int{8, 16}[i])
			if path[len(path)-1] != "max_num_seqs" {
				value = []string{"measured", "replayed"}[i]
			}
			if err := m.Set(value, path...); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := bundlemerge.Merge([]*perfio.Bundle{a, b}, 0, false); err == nil || !strings.Contains(err.Error(), path[len(path)-1]+": found") {
			t.Errorf("%v: %v", path, err)
		}
	}
	if _, err := bundlemerge.Merge([]*perfio.Bundle{bundletest.Bundle()}, 0, false); err == nil {
		t.Error("one part: no error")
	}
}
