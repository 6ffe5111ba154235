package bundlemerge_test

import (
	"math"
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

// Sums and means of skew times go together as what the first part with any has.
func TestStatistics(t *testing.T) {
	part := func(dir string, rows int, times float64, keys map[string]any) *perfio.Bundle {
		b := bundletest.Bundle()
		b.Dir = dir
		b.Meta.Delete("skew_statistic")
		for key, value := range keys {
			if err := b.Meta.Set(value, key); err != nil {
				t.Fatal(err)
			}
		}
		for i := range b.TPs {
			b.TPs[i].Skew = b.TPs[i].Skew[rows:]
			for j := range b.TPs[i].Skew {
				row := &b.TPs[i].Skew[j]
				row.TMeanUS, row.TMaxUS, row.TSkewUS = times*row.TMeanUS, times*row.TMaxUS, times*row.TSkewUS
			}
		}
		return b
	}
	mean, sum := map[string]any{"skew_statistic": "mean"}, map[string]any{"skew_statistic": "sum", "skew_sum_of": 5}
	for _, test := range []struct {
		name     string
		parts    []*perfio.Bundle
		runs     int
		said     string
		notes    int
		keepLast bool
	}{
		{"silent, which is the sum of 3, and means", []*perfio.Bundle{part("a", 2, 3, nil), part("b", 0, 1, mean)}, 3, "", 2, false},
		{"the same, the last ones count", []*perfio.Bundle{part("a", 2, 3, nil), part("b", 0, 1, mean)}, 3, "", 2, true},
		{"means and sums of 5", []*perfio.Bundle{part("a", 2, 1, mean), part("b", 0, 5, sum)}, 1, "mean", 2, true},
		{"sums of 5 and of 3", []*perfio.Bundle{part("a", 2, 5, sum), part("b", 0, 3, nil)}, 5, "sum", 2, true},
		{"a first part without any", []*perfio.Bundle{part("a", 4, 1, mean), part("b", 2, 3, nil), part("c", 0, 1, mean)}, 3, "", 2, false},
		{"sums alone", []*perfio.Bundle{part("a", 2, 3, nil), part("b", 0, 3, nil)}, 3, "", 1, false},
	} {
		before := slices.Clone(test.parts[1].TPs[0].Skew)
		got, err := bundlemerge.Merge(test.parts, 0, test.keepLast)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		m := got.Bundle.Meta
		if m.SkewRuns() != test.runs || m.Text("skew_statistic") != test.said || len(got.Notes) != test.notes || len(got.Conflicts) != 0 {
			t.Errorf("%s: %q, sums of %d, notes %q, conflicts %v", test.name, m.Text("skew_statistic"), m.SkewRuns(), got.Notes, got.Conflicts)
		}
		if !slices.Equal(before, test.parts[1].TPs[0].Skew) {
			t.Errorf("%s: a part was changed", test.name)
		}
		type key struct{ n, kvs int }
		want := make(map[key]perfio.SkewRow)
		for _, row := range bundletest.Bundle().TPs[0].Skew {
			want[key{row.N, row.KVS}] = row
		}
		for _, row := range got.Bundle.TPs[0].Skew {
			w, runs := want[key{row.N, row.KVS}], float64(test.runs)
			delete(want, key{row.N, row.KVS})
			if math.Abs(row.TMeanUS-runs*w.TMeanUS) > 1e-9 || math.Abs(row.TMaxUS-runs*w.TMaxUS) > 1e-9 || math.Abs(row.TSkewUS-runs*w.TSkewUS) > 1e-9 || row.Alpha != w.Alpha {
				t.Errorf("%s: %+v, expected %g times %+v", test.name, row, runs, w)
			}
		}
		if len(want) > 0 {
			t.Errorf("%s: no rows of %v", test.name, want)
		}
	}
	unknown := part("b", 0, 1, nil)
	unknown.Meta.Delete("measurement_iterations")
	if _, err := bundlemerge.Merge([]*perfio.Bundle{part("a", 0, 3, nil), unknown}, 0, false); err == nil || !strings.Contains(err.Error(), "b: skew_sum_of: found 0, expected 3 as in a") {
		t.Errorf("an unknown number of runs: %v", err)
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
