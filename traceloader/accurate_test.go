package traceloader_test

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// grid is a small made-up attention grid by a function of its coordinates.
func madeUpGrid(us func(pc, kp, n, kd int) float64) []perfio.AttentionRow {
	var out []perfio.AttentionRow
	for _, pc := range []int{0, 16, 64, 256, 1024} {
		for _, kp := range []int{0, 512, 2048} {
			for _, n := range []int{0, 1, 4, 16, 64} {
				for _, kd := range []int{0, 16, 128, 1024, 4096} {
					if pc == 0 && kp > 0 || n == 0 && kd > 0 || n > 0 && kd == 0 || pc+n == 0 {
						continue
					}
					out = append(out, perfio.AttentionRow{PrefillChunk: pc, KVPrefill: kp, NDecode: n, KVDecode: kd, TimeUS: us(pc, kp, n, kd)})
				}
			}
		}
	}
	return out
}

func parseMeta(t *testing.T, text string) *perfio.Meta {
	t.Helper()
	m, err := perfio.ParseMeta(strings.NewReader(text), "meta.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func openAccurate(t *testing.T, b *perfio.Bundle) *traceloader.Table {
	t.Helper()
	table, err := traceloader.New(b, traceloader.Options{Rules: traceloader.Accurate, Lenient: true})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func decodesOf(kv ...int) (out []perfio.Request) {
	for _, k := range kv {
		out = append(out, perfio.Request{NewTokens: 1, KVHistory: k})
	}
	return out
}

// Whatever the bundle lacks, each answer is a positive number.
func TestAccurateAnswersOnAnyBundle(t *testing.T) {
	smooth := func(pc, kp, n, kd int) float64 {
		return 4 + 0.01*float64(pc) + 1e-5*float64(pc)*float64(kp+pc) + 1e-3*float64(n*(kd+50))
	}
	known := "gpu: NVIDIA H200\nmodel: meta-llama/Llama-3.1-8B\nattention_backend: FlashAttention 3\n"
	full := madeUpGrid(smooth)
	var decodeOnly []perfio.AttentionRow
	for _, r := range full {
		if r.PrefillChunk == 0 {
			decodeOnly = append(decodeOnly, r)
		}
	}
	for _, test := range []struct {
		name, meta string
		rows       []perfio.AttentionRow
		batches    []perfio.BatchRow
	}{
		{"all known", known, full, nil},
		{"nothing known", "model: someone/else\n", full, nil},
		{"unknown GPU", "gpu: Something 9000\nmodel: meta-llama/Llama-3.1-8B\n", full, nil},
		{"multiprocessors said", "gpu: Something 9000\nsm_count: 77\nmodel: meta-llama/Llama-3.1-8B\n", full, nil},
		{"one row", known, full[:1], nil},
		{"one row, nothing known", "model: someone/else\n", full[len(full)-1:], nil},
		{"two rows", known, []perfio.AttentionRow{full[0], full[len(full)-1]}, nil},
		{"decodes only", known, decodeOnly, nil},
		{"with batches", known, full, []perfio.BatchRow{
			{Requests: decodesOf(5, 900, 17), MeasuredUS: map[string]float64{"attention": 9}},
			{Requests: decodesOf(5), MeasuredUS: map[string]float64{"act_fn": 9}},
			{MeasuredUS: map[string]float64{"attention": 9}},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := &perfio.Bundle{Meta: parseMeta(t, test.meta), TPs: []perfio.TP{{Degree: 1, Attention: test.rows, Batches: test.batches}}}
			h, ok := openAccurate(t, b).Attention(1)
			if !ok {
				t.Fatal("no attention handle")
			}
			rnd := rand.New(rand.NewPCG(1, 1))
			check := func(what any, e traceloader.Estimate, ok bool) {
				t.Helper()
				if !ok || e.LatencyNS < 1 || e.LatencyNS > 1e10 || math.IsNaN(e.Sigma) || e.Sigma <= 0 || e.Sigma > 10 {
					t.Errorf("%v: %+v %v", what, e, ok)
				}
			}
			for range 200 {
				pc, kp, n := rnd.IntN(3)*rnd.IntN(3000), rnd.IntN(20000), 1+rnd.IntN(300)
				lo := rnd.IntN(30000)
				hi := lo + rnd.IntN(9000)
				e, ok := h.Estimate(pc, kp, n, lo)
				check([]int{pc, kp, n, lo}, e, ok)
				e, ok = h.EstimateSkew(pc, kp, n, (3*lo+hi)/4, hi, lo)
				check([]int{pc, kp, n, (3*lo + hi) / 4, hi, lo}, e, ok)
				list := decodesOf(lo, hi, 3)
				list = append(list, perfio.Request{NewTokens: 1 + pc, KVHistory: kp}, perfio.Request{NewTokens: 7})
				e, ok = h.EstimateBatch(list)
				check(list, e, ok)
			}
			if ns, ok := h.BatchLatencyNS([]perfio.Request{{NewTokens: 1 << 31, KVHistory: 1 << 31}, {NewTokens: 1, KVHistory: 1 << 31}}); !ok || ns < 1 {
				t.Errorf("an absurd batch: %d ns %v", ns, ok)
			}
			e, ok := h.EstimateBatch(decodesOf(0))
			check("a first token", e, ok)
			if _, ok := h.BatchLatencyNS(nil); ok {
				t.Error("an empty batch has an answer")
			}
		})
	}
}

// Times that straight lines know exactly are answered by straight lines.
func TestAccurateKeepsStraightLines(t *testing.T) {
	lines := func(pc, kp, n, kd int) float64 { return 3 + 0.5*float64(pc) + float64(n)*7 + 0.25*float64(kd) }
	b := &perfio.Bundle{Meta: parseMeta(t, "model: someone/else\n"), TPs: []perfio.TP{{Degree: 1, Attention: madeUpGrid(lines)}}}
	table := openAccurate(t, b)
	c, ok := table.Calibration()
	if !ok || c.TPs[0].Attention.Basis.String() != "linear" {
		t.Errorf("calibration %+v", c)
	}
	h, _ := table.Attention(1)
	for _, q := range [][4]int{{100, 512, 10, 500}, {0, 0, 10, 500}, {30, 100, 3, 20}} {
		ns, _ := h.LatencyNS(q[0], q[1], q[2], q[3])
		if want := lines(q[0], q[1], q[2], q[3]) * 1000; math.Abs(float64(ns)-want) > 2 {
			t.Errorf("%v: %d ns, want %.0f", q, ns, want)
		}
	}
}

// Dense: measured counts are as measured, a spike spoils nothing beside it,
// and beyond the range time goes on rising by the tile.
func TestAccurateDense(t *testing.T) {
	var rows []perfio.DenseRow
	us := func(x int) float64 { return 10 + float64((x+127)/128) }
	for x := 16; x <= 2048; x += 16 {
		y := us(x)
		if x == 448 {
			y *= 2
		}
		rows = append(rows, perfio.DenseRow{Layer: "gate_up_proj", Tokens: x, TimeUS: y})
	}
	b := &perfio.Bundle{TPs: []perfio.TP{{Degree: 1, Dense: rows}}}
	c, ok := openAccurate(t, b).Dense(1, "gate_up_proj")
	if !ok {
		t.Fatal("no handle")
	}
	for _, test := range []struct {
		tokens int
		want   float64
		status traceloader.Status
	}{
		{448, 28, traceloader.Measured}, {440, 14, traceloader.Interpolated}, {450, 14, traceloader.Interpolated},
		{64, 11, traceloader.Measured}, {2048, 26, traceloader.Measured},
		{2049, 27, traceloader.Extrapolated}, {4096, 42, traceloader.Extrapolated}, {8192, 74, traceloader.Extrapolated},
		{1 << 20, 10 + 8192, traceloader.Extrapolated},
	} {
		ns, a := c.Explain(test.tokens)
		if math.Abs(float64(ns)-1000*test.want) > 0.02*1000*test.want || a.Status != test.status || a.Sigma <= 0 {
			t.Errorf("%d tokens: %d ns %+v, want %g us %v", test.tokens, ns, a, test.want, test.status)
		}
	}
	if lo, hi, _ := c.Range(); lo != 16 || hi != 2048 {
		t.Errorf("range %d to %d", lo, hi)
	}
}

// A failed row spoils no answer but its own, wherever it stands, and its own is
// not trusted.
func TestAccurateDenseFailedRow(t *testing.T) {
	const last = 20480
	us := func(x int) float64 { return 10 + float64((x+127)/128) }
	for _, test := range []struct {
		tokens int
		factor float64
	}{{0, 1}, {16, 8}, {64, 0.1}, {512, 0.2}, {1024, 5}, {last - 128, 0.2}, {last - 128, 4}, {last, 0.1}, {last, 5}} {
		var rows []perfio.DenseRow
		for x := 16; x <= last; x *= 2 {
			for _, at := range []int{x, min(x*3/2, last-384)} {
				rows = append(rows, perfio.DenseRow{Layer: "down_proj", Tokens: at, TimeUS: us(at)})
			}
		}
		for _, at := range []int{last - 256, last - 128, last} {
			rows = append(rows, perfio.DenseRow{Layer: "down_proj", Tokens: at, TimeUS: us(at)})
		}
		for i := range rows {
			if rows[i].Tokens == test.tokens {
				rows[i].TimeUS *= test.factor
			}
		}
		c, _ := openAccurate(t, &perfio.Bundle{TPs: []perfio.TP{{Degree: 1, Dense: rows}}}).Dense(1, "down_proj")
		for x := 1; x <= 4*last; x += 7 {
			ns, a := c.Explain(x)
			if x == test.tokens {
				continue
			}
			if want := 1000 * us(max(x, 16)); math.Abs(float64(ns)-want) > 0.25*want {
				t.Errorf("%d tokens times %g: at %d tokens %d ns %+v, want about %.0f", test.tokens, test.factor, x, ns, a, want)
				break
			}
		}
		if ns, a := c.Explain(test.tokens); test.tokens > 0 && (math.Abs(float64(ns)-1000*test.factor*us(test.tokens)) > 1 || a.Status != traceloader.Measured || a.Sigma < 0.5) {
			t.Errorf("%d tokens times %g: itself %d ns %+v", test.tokens, test.factor, ns, a)
		}
	}
}

// Steep and falling layers of few counts are as they were measured.
func TestAccurateDenseSparse(t *testing.T) {
	for name, test := range map[string]struct {
		tokens []int
		us     []float64
		want   map[int]float64
	}{
		"rising at last": {[]int{1, 16, 128, 2048}, []float64{10, 10, 10, 100}, map[int]float64{1000: 51, 2047: 100, 2048: 100, 2049: 106, 4096: 196}},
		"falling":        {[]int{1, 2, 4, 8, 16}, []float64{1000, 500, 250, 125, 60}, map[int]float64{3: 187.5, 8: 125, 16: 60, 17: 60}},
		"first falls":    {[]int{1, 16, 128, 2048}, []float64{25, 10, 10, 100}, map[int]float64{1: 25, 16: 10}},
	} {
		var rows []perfio.DenseRow
		for i, x := range test.tokens {
			rows = append(rows, perfio.DenseRow{Layer: "o_proj", Tokens: x, TimeUS: test.us[i]})
		}
		c, _ := openAccurate(t, &perfio.Bundle{TPs: []perfio.TP{{Degree: 1, Dense: rows}}}).Dense(1, "o_proj")
		for x, want := range test.want {
			if ns, a := c.Explain(x); math.Abs(float64(ns)/1000/want-1) > 0.03 || a.Sigma > 0.5 {
				t.Errorf("%s, %d tokens: %d ns %+v, want %g us", name, x, ns, a, want)
			}
		}
	}
}

// Whatever stands in dense.csv, an answer comes of it: within the range none
// below all that was measured, nor far above it (in place of a last point that
// is not believed stands what the others lead to).
func TestAccurateDenseWild(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tables := [][]float64{{1000, 1, 100}, {1, 1000, 1}, {100, 10, 1}, {1, 1, 1}, {1000, 1, 1000, 1}}
	for range 2000 {
		us := make([]float64, 1+r.IntN(12))
		for i := range us {
			us[i] = math.Exp(8*r.Float64() - 1)
		}
		tables = append(tables, us)
	}
	for _, us := range tables {
		var rows []perfio.DenseRow
		x, step := 1, 1+r.IntN(200)
		for _, y := range us {
			rows = append(rows, perfio.DenseRow{Layer: "o_proj", Tokens: x, TimeUS: y})
			x += 1 + r.IntN(step)
		}
		c, _ := openAccurate(t, &perfio.Bundle{TPs: []perfio.TP{{Degree: 1, Dense: rows}}}).Dense(1, "o_proj")
		last := rows[len(rows)-1].Tokens
		for q := 1; q <= last; q++ {
			ns, a := c.Explain(q)
			if e := float64(ns) / 1000; e < 0.99*slices.Min(us) || e > 4*slices.Max(us) || !(a.Sigma > 0) || math.IsInf(a.Sigma, 0) {
				t.Fatalf("%v: %d tokens: %d ns, sigma %g", rows, q, ns, a.Sigma)
			}
		}
		for _, q := range []int{last + 1, 2*last + 300, 1 << 30} {
			if ns, a := c.Explain(q); ns < 1 || !(a.Sigma > 0) || math.IsInf(a.Sigma, 0) {
				t.Fatalf("%v: %d tokens: %d ns, sigma %g", rows, q, ns, a.Sigma)
			}
		}
	}
}

func writeMadeUpBundle(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tp1"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("meta.yaml", "gpu: NVIDIA H200\nhardware: H200\narchitecture: llama\nmodel: meta-llama/Llama-3.1-8B\nvariant: bf16\ntp_degrees: [1]\n")
	var s strings.Builder
	s.WriteString("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\r\n")
	for _, r := range madeUpGrid(func(pc, kp, n, kd int) float64 { return 5 + 0.02*float64(pc) + 0.001*float64(n*kd) }) {
		s.WriteString(strings.Join([]string{itoa(r.PrefillChunk), itoa(r.KVPrefill), itoa(r.NDecode), itoa(r.KVDecode), ftoa(r.TimeUS)}, ",") + "\r\n")
	}
	write("tp1/attention.csv", s.String())
	write("tp1/dense.csv", "layer,tokens,time_us\r\nact_fn,1,2\r\n")
	write("tp1/per_sequence.csv", "layer,sequences,time_us\r\nsampler,1,2\r\n")
	return dir
}

func itoa(v int) string     { return strconv.Itoa(v) }
func ftoa(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// A memo follows growing decodes closely and answers all else as the handle.
func TestDecodeMemo(t *testing.T) {
	b := &perfio.Bundle{
		Meta: parseMeta(t, "gpu: NVIDIA H200\nmodel: meta-llama/Llama-3.1-8B\nattention_backend: FlashAttention 3\n"),
		TPs: []perfio.TP{{Degree: 1, Attention: madeUpGrid(func(pc, kp, n, kd int) float64 {
			return 12 + 0.02*float64(pc) + 0.0012*float64(n*kd)
		})}},
	}
	h, _ := openAccurate(t, b).Attention(1)
	m := traceloader.NewDecodeMemo(h)
	list := decodesOf(100, 3000, 777, 1500)
	for step := range 400 {
		got, ok := m.LatencyNS(list)
		want, _ := h.BatchLatencyNS(list)
		if !ok || math.Abs(float64(got)/float64(want)-1) > 0.05 {
			t.Fatalf("step %d: %d ns, the handle says %d", step, got, want)
		}
		for i := range list {
			list[i].KVHistory++
		}
		switch step {
		case 130:
			list = append(list, perfio.Request{NewTokens: 200})
		case 131:
			list = list[:3]
		case 250:
			list[1].KVHistory += 7
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		m.LatencyNS(list)
		for i := range list {
			list[i].KVHistory++
		}
	}); n > 0 && !raceEnabled {
		t.Errorf("%g allocations a step", n)
	}
	if _, ok := m.LatencyNS(nil); ok {
		t.Error("an empty batch has an answer")
	}
}

// Lookups allocate nothing.
func TestAccurateAllocatesNothing(t *testing.T) {
	b := &perfio.Bundle{
		Meta: parseMeta(t, "gpu: NVIDIA H200\nmodel: meta-llama/Llama-3.1-8B\nattention_backend: FlashAttention 3\n"),
		TPs: []perfio.TP{{Degree: 1, Attention: madeUpGrid(func(pc, kp, n, kd int) float64 {
			return 12 + 0.02*float64(pc) + 0.0012*float64(n*kd)
		})}},
	}
	h, _ := openAccurate(t, b).Attention(1)
	list := append(decodesOf(100, 3000, 777, 1500), perfio.Request{NewTokens: 300, KVHistory: 40})
	for name, ask := range map[string]func(){
		"uniform": func() { h.LatencyNS(300, 100, 20, 900) },
		"skew":    func() { h.SkewLatencyNS(300, 100, 20, 900, 3000, 50) },
		"list":    func() { h.BatchLatencyNS(list) },
	} {
		ask()
		// The race detector makes pools forget on purpose; on average a list
		// allocates less than once without it.
		if n := testing.AllocsPerRun(200, ask); n > 0 && !raceEnabled {
			t.Errorf("%s: %g allocations", name, n)
		}
	}
}
