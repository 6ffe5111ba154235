package traceloader

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/perfio"
)

// metaOf makes a Meta from text.
func metaOf(t testing.TB, text string) *perfio.Meta {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	return &perfio.Meta{Root: doc.Content[0]}
}

// values draws n distinct keys of an axis, in no order.
func values(r *rand.Rand, n, most int) []int {
	seen := map[int]bool{}
	for range n {
		seen[r.IntN(most)] = true
	}
	var vs []int
	for v := range seen {
		vs = append(vs, v)
	}
	return vs
}

// randomBundle draws a ragged bundle: missing slices, rows with lists of their
// own, axes of one value, rows in no order.
func randomBundle(r *rand.Rand, meta *perfio.Meta) *perfio.Bundle {
	b := &perfio.Bundle{Meta: meta}
	us := func() float64 { return float64(1+r.IntN(3_000_000)) / 997 }
	for _, degree := range [][]int{{1}, {1, 2}, {2, 4}}[r.IntN(3)] {
		tp := perfio.TP{Degree: degree}
		most := []int{3, 40, 3000, maxKey}[r.IntN(4)]
		kds := values(r, 1+r.IntN(6), most)
		for _, pc := range values(r, 1+r.IntN(5), most) {
			for _, nd := range values(r, 1+r.IntN(4), most) {
				if r.IntN(4) == 0 && len(tp.Attention) > 0 {
					continue
				}
				for _, kp := range values(r, 1+r.IntN(4), most) {
					first := r.IntN(len(kds))
					for i, kd := range kds {
						if i == first || r.IntN(3) > 0 {
							tp.Attention = append(tp.Attention, perfio.AttentionRow{PrefillChunk: pc, KVPrefill: kp, NDecode: nd, KVDecode: kd, TimeUS: us()})
						}
					}
				}
			}
		}
		r.Shuffle(len(tp.Attention), func(i, j int) {
			tp.Attention[i], tp.Attention[j] = tp.Attention[j], tp.Attention[i]
		})
		for _, layer := range []string{"x", "y"} {
			for _, n := range values(r, 1+r.IntN(6), most) {
				tp.Dense = append(tp.Dense, perfio.DenseRow{Layer: layer, Tokens: n, TimeUS: us()})
				tp.PerSequence = append(tp.PerSequence, perfio.SequenceRow{Layer: layer, Sequences: n, TimeUS: us()})
			}
		}
		for _, e := range values(r, 1+r.IntN(4), most) {
			for _, n := range values(r, 1+r.IntN(4), most) {
				tp.MoE = append(tp.MoE, perfio.MoERow{Tokens: n, ActivatedExperts: e, TimeUS: us()})
			}
		}
		b.TPs = append(b.TPs, tp)
	}
	return b
}

const fitYAML = `
skew_fit:
  enabled: true
  alpha_default: 0.3
  bucket_axes:
    n_bins: [0, 2, 8, 1000000]
    n_labels: [few, some, many]
    skew_rate_bins: [-0.01, 0.05, 0.4, 1.01]
    skew_rate_labels: [low, mid, high]
    kv_big_bins: [0, 10, 1000, 1000000000]
    kv_big_labels: [short, long, longer]
    kp_bins: [-1, 0, 100, 1000000000]
    kp_labels: [none, small, large]
  per_tp:
    1: {alpha_default: 0.125, bucket_table: tp1/skew_fit.csv}
    "2": {alpha_default: -0.5, bucket_table: tp2/skew_fit.csv}
`

// addFit gives the tp folders buckets for the chunks that they hold.
func addFit(r *rand.Rand, b *perfio.Bundle) {
	for i := range b.TPs {
		tp := &b.TPs[i]
		tp.SkewFit = []perfio.SkewFitRow{}
		seen := map[string]bool{}
		for range 60 {
			row := perfio.SkewFitRow{
				PC:     tp.Attention[r.IntN(len(tp.Attention))].PrefillChunk,
				NLabel: pick(r, "few", "some", "many"), SkewRateLabel: pick(r, "low", "mid", "high"),
				KVBigLabel: pick(r, "short", "long", "longer"), KPLabel: pick(r, "none", "small", "large"),
				Alpha: float64(r.IntN(4000)-1000) / 1000,
			}
			if r.IntN(8) == 0 {
				row.RawKey, row.KPLabel = row.Key(), "elsewhere"
			}
			if !seen[row.Key()] {
				seen[row.Key()] = true
				tp.SkewFit = append(tp.SkewFit, row)
			}
		}
		if r.IntN(2) == 0 {
			for j := range tp.SkewFit {
				if raw := &tp.SkewFit[j]; raw.RawKey != "" {
					// The same without raw keys, which takes another way.
					raw.RawKey, raw.KPLabel = "", fmt.Sprint("elsewhere", j)
				}
			}
		}
	}
}

func pick(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

// near draws a coordinate on, beside, between or far from an axis' values.
func near(r *rand.Rand, v int) int {
	switch r.IntN(6) {
	case 0:
		return v
	case 1:
		return v - 1
	case 2:
		return v + 1
	case 3:
		return r.IntN(2*v + 2)
	case 4:
		return -r.IntN(3)
	}
	return 3*v + r.IntN(100)
}

// randomQuery draws one near a row of the bundle.
func randomQuery(r *rand.Rand, b *perfio.Bundle) query {
	tp := &b.TPs[r.IntN(len(b.TPs))]
	a := func() *perfio.AttentionRow { return &tp.Attention[r.IntN(len(tp.Attention))] }
	q := query{tp: tp.Degree, lookup: pick(r, "dense", "per_sequence", "attention", "attention_skew", "attention_skew", "moe"), layer: pick(r, "x", "y")}
	switch q.lookup {
	case "dense", "per_sequence":
		q.c[0] = near(r, tp.Dense[r.IntN(len(tp.Dense))].Tokens)
	case "moe":
		m := b.TPs[0].MoE[r.IntN(len(b.TPs[0].MoE))]
		q.c[0], q.c[1] = near(r, m.Tokens), near(r, m.ActivatedExperts)
	default:
		q.c = [6]int{near(r, a().PrefillChunk), near(r, a().KVPrefill), near(r, a().NDecode), near(r, a().KVDecode), near(r, a().KVDecode), near(r, a().KVDecode)}
		if r.IntN(2) == 0 {
			q.c[0] = a().PrefillChunk
		}
	}
	return q
}

// TestRandom holds tables of random ragged bundles against the plain
// implementation, with the packed grid and without it.
func TestRandom(t *testing.T) {
	meta := metaOf(t, fitYAML)
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := randomBundle(r, meta)
		addFit(r, b)
		table, err := New(b, Options{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		searched, err := New(b, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range searched.tps {
			searched.tps[i].attention.(*parityAttention).packed = nil
			searched.tps[i].moe.segs = nil
		}
		p := newPlain(b)
		for range 200 {
			q := randomQuery(r, b)
			want := p.ask(q)
			for _, table := range []*Table{table, searched} {
				if ns, a, ok := ask(table, q); !ok || ns != want || a.Status == Unanswered {
					t.Fatalf("seed %d: %+v: got %d, %+v, %v, want %d", seed, q, ns, a, ok, want)
				}
			}
		}
	}
}

// TestMeasured looks every row up: each must return its own value and say so.
func TestMeasured(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		b := randomBundle(r, nil)
		table, err := New(b, Options{Refuse: seed%2 == 0})
		if err != nil {
			t.Fatal(err)
		}
		check := func(what any, timeUS float64, got int64, a Answer) {
			t.Helper()
			// On the last key of an axis the rules blend with t = 1, and
			// v0 + 1*(v1-v0) of values between integers may end just below v1.
			if want := int64(plainNS(timeUS)); got != want && got != max(1, want-1) || a.Status != Measured {
				t.Fatalf("seed %d: %+v: got %d, %v, want %d, measured", seed, what, got, a.Status, want)
			}
		}
		for _, tp := range b.TPs {
			h, _ := table.Attention(tp.Degree)
			for _, row := range tp.Attention {
				ns, a := h.Explain(row.PrefillChunk, row.KVPrefill, row.NDecode, row.KVDecode)
				check(row, row.TimeUS, ns, a)
			}
			for _, row := range tp.Dense {
				c, _ := table.Dense(tp.Degree, row.Layer)
				if row.Tokens == 0 {
					continue // counts as 1
				}
				ns, a := c.Explain(row.Tokens)
				check(row, row.TimeUS, ns, a)
			}
		}
		m, _ := table.MoE()
		for _, row := range b.TPs[0].MoE {
			if row.Tokens == 0 || row.ActivatedExperts == 0 {
				continue
			}
			ns, a := m.Explain(row.Tokens, row.ActivatedExperts)
			check(row, row.TimeUS, ns, a)
		}
	}
}

// TestBetween takes two neighbours on each axis: what lies between them is
// answered between their values.
func TestBetween(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 3))
		b := randomBundle(r, nil)
		table, err := New(b, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range table.tps {
			tp := &table.tps[i]
			h, _ := table.Attention(tp.degree)
			for _, s := range tp.grid.slices {
				for k, row := range s.rows {
					for j := range len(row.kds) - 1 {
						if row.kds[j+1]-row.kds[j] < 2 {
							continue
						}
						q := row.kds[j] + 1 + r.IntN(row.kds[j+1]-row.kds[j]-1)
						ns, a := h.Explain(s.pc, s.kps[k], s.nd, q)
						if lo, hi := int64(min(row.ns[j], row.ns[j+1])), int64(max(row.ns[j], row.ns[j+1])); ns < lo || ns > hi || a.Status != Interpolated {
							t.Fatalf("seed %d: kd %d of %+v: got %d, %v, want %d to %d, interpolated", seed, q, row, ns, a.Status, lo, hi)
						}
					}
				}
			}
			for _, c := range tp.dense {
				for j := range len(c.xs) - 1 {
					if c.xs[j+1]-c.xs[j] < 2 || c.xs[j+1] < 3 {
						continue
					}
					q := c.xs[j+1] - 1
					ns, a := Curve{c}.Explain(q)
					if lo, hi := int64(min(c.ys[j], c.ys[j+1])), int64(max(c.ys[j], c.ys[j+1])); ns < lo || ns > hi || a.Status != Interpolated {
						t.Fatalf("seed %d: %d of %v: got %d, %v, want %d to %d", seed, q, c.xs, ns, a.Status, lo, hi)
					}
				}
			}
		}
	}
}
