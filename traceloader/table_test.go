package traceloader

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
)

// toyArch has a layer that stands twice in a block and one that is tp_stable.
func toyArch() *perfio.Architecture {
	return &perfio.Architecture{
		ModelType: "toy",
		Sequence: perfio.Sequence{
			Prologue: []string{"embedding"},
			PreAttn:  []string{"norm", "attention"},
			PostAttn: []string{"norm"},
			MLPDense: []string{"mlp"},
			MLPMoE:   []string{"moe"},
			Head:     []string{"lm_head"},
		},
		Catalog: []perfio.CatalogEntry{
			{Layer: "embedding", Category: "dense"},
			{Layer: "norm", Category: "dense", TPStable: true},
			{Layer: "mlp", Category: "dense"},
			{Layer: "attention", Category: "attention"},
			{Layer: "moe", Category: "moe"},
			{Layer: "lm_head", Category: "per_sequence"},
		},
	}
}

func toyTP(degree int, scale float64) perfio.TP {
	tp := perfio.TP{Degree: degree}
	for _, n := range []int{1, 10, 100} {
		for i, layer := range []string{"embedding", "norm", "mlp"} {
			tp.Dense = append(tp.Dense, perfio.DenseRow{Layer: layer, Tokens: n, TimeUS: scale * float64((i+1)*n)})
		}
		tp.PerSequence = append(tp.PerSequence, perfio.SequenceRow{Layer: "lm_head", Sequences: n, TimeUS: scale * float64(7*n)})
		tp.MoE = append(tp.MoE, perfio.MoERow{Tokens: n, ActivatedExperts: 4, TimeUS: scale * float64(11*n)})
	}
	for _, pc := range []int{0, 16, 32} {
		for _, nd := range []int{0, 1, 8} {
			if pc+nd == 0 {
				continue
			}
			kps, kds := []int{16, 64}, []int{16, 64}
			if pc == 0 {
				kps = []int{0}
			}
			if nd == 0 {
				kds = []int{0}
			}
			for _, kp := range kps {
				for _, kd := range kds {
					tp.Attention = append(tp.Attention, perfio.AttentionRow{PrefillChunk: pc, KVPrefill: kp, NDecode: nd, KVDecode: kd, TimeUS: scale * float64(100+pc*(1+kp)+nd*kd)})
				}
			}
		}
	}
	return tp
}

func toyBundle(degrees ...int) *perfio.Bundle {
	b := &perfio.Bundle{}
	for _, d := range degrees {
		b.TPs = append(b.TPs, toyTP(d, 1/float64(d)))
	}
	return b
}

func mustNew(t testing.TB, b *perfio.Bundle, o Options) *Table {
	t.Helper()
	table, err := New(b, o)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestTPStable(t *testing.T) {
	at := func(table *Table, tp int, layer string) int64 {
		t.Helper()
		c, ok := table.Dense(tp, layer)
		ns, answered := c.LatencyNS(10)
		if !ok || !answered {
			t.Fatalf("tp%d %s: no answer", tp, layer)
		}
		return ns
	}
	with := mustNew(t, toyBundle(1, 2), Options{Architecture: toyArch()})
	if got := at(with, 2, "norm"); got != 20000 {
		t.Errorf("norm is tp_stable: got %d, want tp1's 20000", got)
	}
	if got := at(with, 2, "mlp"); got != 15000 {
		t.Errorf("mlp: got %d, want tp2's 15000", got)
	}
	without := mustNew(t, toyBundle(2, 4), Options{Architecture: toyArch()})
	if got := at(without, 4, "norm"); got != 5000 {
		t.Errorf("norm without tp1: got %d, want tp4's 5000", got)
	}
	m, _ := without.MoE()
	if got, _ := m.LatencyNS(10, 4); got != 55000 {
		t.Errorf("MoE without tp1: got %d, want tp2's 55000", got)
	}
}

// TestNone asks for what is not there: never a number.
func TestNone(t *testing.T) {
	table := mustNew(t, toyBundle(1), Options{})
	if _, ok := table.Dense(1, "no such layer"); ok {
		t.Error("an unknown layer was found")
	}
	if _, ok := table.Dense(8, "mlp"); ok {
		t.Error("an unknown degree was found")
	}
	if _, ok := table.Attention(8); ok {
		t.Error("attention of an unknown degree was found")
	}
	if ns, ok := (Curve{}).LatencyNS(1); ok || ns != 0 {
		t.Errorf("the zero Curve answers %d", ns)
	}
	if ns, ok := (Attention{}).LatencyNS(1, 1, 1, 1); ok || ns != 0 {
		t.Errorf("the zero Attention answers %d", ns)
	}
	if ns, a := (Attention{}).ExplainSkew(1, 1, 2, 1, 2, 1); ns != 0 || a.Status != Unanswered {
		t.Errorf("the zero Attention answers %d, %v", ns, a)
	}
	if ns, ok := (MoE{}).LatencyNS(1, 1); ok || ns != 0 {
		t.Errorf("the zero MoE answers %d", ns)
	}
	var zero Table
	if _, ok := zero.MoE(); ok {
		t.Error("the zero Table has a MoE")
	}
	if _, err := zero.Walk(1); err == nil {
		t.Error("the zero Table walks")
	}
	h, _ := table.Attention(1)
	if ns, ok := h.BatchLatencyNS([]perfio.Request{{NewTokens: -1, KVHistory: 3}}); ok {
		t.Errorf("a request of -1 tokens answers %d", ns)
	}
}

func TestRefuse(t *testing.T) {
	table := mustNew(t, toyBundle(1), Options{Refuse: true})
	dense, _ := table.Dense(1, "mlp")
	moe, _ := table.MoE()
	attention, _ := table.Attention(1)
	for _, c := range []struct {
		name   string
		lookup func() (int64, bool)
		want   bool
	}{
		{"dense at the last key", func() (int64, bool) { return dense.LatencyNS(100) }, true},
		{"dense beyond", func() (int64, bool) { return dense.LatencyNS(101) }, false},
		{"dense below", func() (int64, bool) { return dense.LatencyNS(0) }, true},
		{"moe inside", func() (int64, bool) { return moe.LatencyNS(100, 4) }, true},
		{"moe tokens beyond", func() (int64, bool) { return moe.LatencyNS(101, 4) }, false},
		{"attention inside", func() (int64, bool) { return attention.LatencyNS(20, 40, 4, 40) }, true},
		{"attention below", func() (int64, bool) { return attention.LatencyNS(16, 1, 1, 1) }, true},
		{"attention between decode and mixed", func() (int64, bool) { return attention.LatencyNS(8, 40, 4, 40) }, true},
		{"moe experts beyond", func() (int64, bool) { return moe.LatencyNS(100, 5) }, false},
		{"attention pc beyond", func() (int64, bool) { return attention.LatencyNS(33, 40, 4, 40) }, false},
		{"attention kd beyond", func() (int64, bool) { return attention.LatencyNS(16, 40, 4, 65) }, false},
		{"skew with the longest beyond", func() (int64, bool) { return attention.SkewLatencyNS(16, 40, 4, 40, 65, 16) }, true}, // alpha is 0
		{"batch beyond", func() (int64, bool) {
			return attention.BatchLatencyNS([]perfio.Request{{NewTokens: 1, KVHistory: 999}})
		}, false},
	} {
		if ns, ok := c.lookup(); ok != c.want || ok == (ns == 0) {
			t.Errorf("%s: got %d, %v, want %v", c.name, ns, ok, c.want)
		}
	}
	if ns, a := attention.Explain(33, 40, 4, 40); ns != 0 || a.Status != Unanswered || a.PrefillChunk != Extrapolated {
		t.Errorf("Explain: got %d, %+v", ns, a)
	}
}

func TestDuplicates(t *testing.T) {
	b := toyBundle(1)
	tp := &b.TPs[0]
	tp.Dense = append(tp.Dense, perfio.DenseRow{Layer: "mlp", Tokens: 10, TimeUS: 999})
	again := tp.Attention[3]
	again.TimeUS = 999
	tp.Attention = append(tp.Attention, again)
	tp.MoE = append(tp.MoE, perfio.MoERow{Tokens: 10, ActivatedExperts: 4, TimeUS: 999})
	_, err := New(b, Options{})
	if err == nil {
		t.Fatal("duplicate keys were taken")
	}
	for _, want := range []string{"tp1: dense.csv: mlp: row 10: tokens: found 10 again", "tp1: attention.csv: row", "tp1: moe.csv: activated_experts 4: row 4: tokens: found 10 again"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	lenient := mustNew(t, b, Options{Lenient: true})
	if got := len(lenient.Warnings()); got != 3 {
		t.Errorf("found %d warnings, want 3: %q", got, lenient.Warnings())
	}
	c, _ := lenient.Dense(1, "mlp")
	if ns, _ := c.LatencyNS(10); ns != 30000 {
		t.Errorf("dense: got %d, want the first, 30000", ns)
	}
	h, _ := lenient.Attention(1)
	if ns, a := h.Explain(again.PrefillChunk, again.KVPrefill, again.NDecode, again.KVDecode); a.Status != Measured || ns == 999000 {
		t.Errorf("attention: got %d, %v, want the first", ns, a.Status)
	}
}

func TestNewErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(*perfio.Bundle)
		want   string
	}{
		{"no tp", func(b *perfio.Bundle) { b.TPs = nil }, "found no tp folder"},
		{"negative key", func(b *perfio.Bundle) { b.TPs[0].Attention[2].KVPrefill = -1 }, "tp1: attention.csv: row 3: kv_prefill: found -1"},
		{"large key", func(b *perfio.Bundle) { b.TPs[0].Dense[0].Tokens = 1 << 40 }, "tp1: dense.csv: row 1: tokens: found 1099511627776"},
		{"no time", func(b *perfio.Bundle) { b.TPs[0].MoE[1].TimeUS = 0 }, "tp1: moe.csv: row 2: time_us: found 0"},
		{"endless time", func(b *perfio.Bundle) { b.TPs[0].PerSequence[0].TimeUS = 1e300 }, "tp1: per_sequence.csv: row 1: time_us: found 1e+300"},
		{"degree 0", func(b *perfio.Bundle) { b.TPs[0].Degree = 0 }, "tp: found 0"},
		{"degree twice", func(b *perfio.Bundle) { b.TPs = append(b.TPs, b.TPs[0]) }, "tp1: found twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := toyBundle(1)
			c.damage(b)
			table, err := New(b, Options{})
			if err == nil || table != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v, want an error with %q", table, err, c.want)
			}
		})
	}
	if _, err := New(nil, Options{}); err == nil {
		t.Error("a nil bundle was taken")
	}
}

// TestBundleIsNotKept changes the rows after New.
func TestBundleIsNotKept(t *testing.T) {
	b := toyBundle(1)
	table := mustNew(t, b, Options{})
	for i := range b.TPs[0].Attention {
		b.TPs[0].Attention[i].TimeUS = 1e6
	}
	h, _ := table.Attention(1)
	if ns, _ := h.LatencyNS(0, 0, 1, 16); ns != 116000 {
		t.Errorf("got %d, want 116000", ns)
	}
}

func TestCoverage(t *testing.T) {
	got := mustNew(t, toyBundle(1), Options{}).Coverage()
	want := Coverage{TPs: []TPCoverage{{
		TP:          1,
		Dense:       []LayerCoverage{{"embedding", Range{1, 100, 3}}, {"mlp", Range{1, 100, 3}}, {"norm", Range{1, 100, 3}}},
		PerSequence: []LayerCoverage{{"lm_head", Range{1, 100, 3}}},
		Attention: &AttentionCoverage{PrefillChunk: Range{0, 32, 3}, KVPrefill: Range{0, 64, 3}, NDecode: Range{0, 8, 3},
			KVDecode: Range{0, 64, 3}, Points: 24, Slices: 8},
		MoE: &MoECoverage{Tokens: Range{1, 100, 3}, ActivatedExperts: Range{4, 4, 1}, Points: 3},
	}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAllocs(t *testing.T) {
	table := mustNew(t, toyBundle(1), Options{Architecture: toyArch(), Model: &perfio.ModelConfig{NumHiddenLayers: 4}})
	dense, _ := table.Dense(1, "mlp")
	sequence, _ := table.PerSequence(1, "lm_head")
	attention, _ := table.Attention(1)
	moe, _ := table.MoE()
	walk, err := table.Walk(1)
	if err != nil {
		t.Fatal(err)
	}
	requests := []perfio.Request{{NewTokens: 20, KVHistory: 30}, {NewTokens: 1, KVHistory: 50}, {NewTokens: 1, KVHistory: 20}}
	var step Step
	walk.Step(NewBatch(requests), &step)
	for name, lookup := range map[string]func(){
		"dense":        func() { dense.LatencyNS(50) },
		"per_sequence": func() { sequence.LatencyNS(50) },
		"attention":    func() { attention.LatencyNS(20, 30, 4, 40) },
		"skew":         func() { attention.SkewLatencyNS(20, 30, 4, 40, 60, 20) },
		"batch":        func() { attention.BatchLatencyNS(requests) },
		"moe":          func() { moe.LatencyNS(50, 4) },
		"explain":      func() { attention.ExplainSkew(20, 30, 4, 40, 60, 20) },
		"alpha":        func() { table.SkewAlpha(1, 20, 30, 4, 40, 60, 20) },
		"step":         func() { walk.Step(NewBatch(requests), &step) },
	} {
		if n := testing.AllocsPerRun(100, lookup); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestConcurrent asks one table from many goroutines; the race detector
// watches.
func TestConcurrent(t *testing.T) {
	table := mustNew(t, toyBundle(1, 2), Options{Architecture: toyArch(), Model: &perfio.ModelConfig{NumHiddenLayers: 4}})
	requests := []perfio.Request{{NewTokens: 20, KVHistory: 30}, {NewTokens: 1, KVHistory: 50}, {NewTokens: 1, KVHistory: 20}}
	run := func() (total int64) {
		for _, tp := range table.TPs() {
			w, err := table.Walk(tp)
			if err != nil {
				t.Error(err)
				return 0
			}
			var s Step
			for i := range 200 {
				requests := append(slices.Clone(requests), perfio.Request{NewTokens: 1, KVHistory: i})
				if !w.Step(NewBatch(requests), &s) {
					t.Error("no answer")
				}
				ns, _ := s.TotalNS()
				total += ns
			}
			table.Coverage()
		}
		return total
	}
	want := run()
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			if got := run(); got != want {
				t.Errorf("got %d, want %d", got, want)
			}
		})
	}
	wait.Wait()
}
