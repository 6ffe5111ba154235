package traceloader

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/layerprof/layerprof/perfio"
)

// benchSize is a power of two, so that the next query costs a mask.
const benchSize = 1 << 13

// benchQueries draws queries that a serving simulator would ask: coordinates
// inside and a little beyond the grid, none on purpose on a measured point.
func benchQueries() []query {
	r := rand.New(rand.NewPCG(1, 2))
	queries := make([]query, benchSize)
	for i := range queries {
		pc, kp := 0, 0
		if r.IntN(3) > 0 {
			pc, kp = 1+r.IntN(2200), r.IntN(16500)
		}
		n, mean := 1+r.IntN(280), 1+r.IntN(12000)
		queries[i] = query{tp: 1, c: [6]int{pc, kp, n, mean, mean + r.IntN(5000), max(0, mean-r.IntN(5000))}}
	}
	return queries
}

func benchTable(b *testing.B, name string) (*Table, *plain) {
	bundle := referenceBundle(b, name)
	t, err := New(bundle, Options{})
	if err != nil {
		b.Fatal(err)
	}
	return t, newPlain(bundle)
}

var sink int64

// compare times the lookup and, in the same run, the plain implementation.
func compare(b *testing.B, queries []query, lookup, byHand func(*query) int64) {
	for i := range queries {
		if got, want := lookup(&queries[i]), byHand(&queries[i]); got != want {
			b.Fatalf("%+v: got %d, the plain implementation gives %d", queries[i], got, want)
		}
	}
	start := time.Now()
	for range 4 {
		for i := range queries {
			sink += byHand(&queries[i])
		}
	}
	plainNS := float64(time.Since(start).Nanoseconds()) / float64(4*len(queries))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		sink += lookup(&queries[i&(benchSize-1)])
		i++
	}
	perOp := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
	b.ReportMetric(plainNS, "plain-ns/op")
	b.ReportMetric(plainNS/perOp, "times-faster")
}

func BenchmarkAttention(b *testing.B) {
	t, p := benchTable(b, llama)
	h, _ := t.Attention(1)
	by := p.tps[1]
	compare(b, benchQueries(), func(q *query) int64 {
		ns, _ := h.LatencyNS(q.c[0], q.c[1], q.c[2], q.c[3])
		return ns
	}, func(q *query) int64 { return by.attention(q.c[0], q.c[1], q.c[2], q.c[3]) })
}

func BenchmarkAttentionSkew(b *testing.B) {
	t, p := benchTable(b, llama)
	h, _ := t.Attention(1)
	compare(b, benchQueries(), func(q *query) int64 {
		ns, _ := h.SkewLatencyNS(q.c[0], q.c[1], q.c[2], q.c[3], q.c[4], q.c[5])
		return ns
	}, func(q *query) int64 { return p.skew(1, q.c[0], q.c[1], q.c[2], q.c[3], q.c[4], q.c[5]) })
}

// BenchmarkAttentionBatch is the lookup by a list of 64 decodes and a prefill.
func BenchmarkAttentionBatch(b *testing.B) {
	t, _ := benchTable(b, llama)
	h, _ := t.Attention(1)
	requests := []perfio.Request{{NewTokens: 300, KVHistory: 1000}}
	for i := range 64 {
		requests = append(requests, perfio.Request{NewTokens: 1, KVHistory: 100 + 37*i})
	}
	b.ReportAllocs()
	for b.Loop() {
		ns, _ := h.BatchLatencyNS(requests)
		sink += ns
	}
}

func BenchmarkDense(b *testing.B) {
	t, p := benchTable(b, llama)
	h, _ := t.Dense(1, "qkv_proj")
	compare(b, benchQueries(), func(q *query) int64 {
		ns, _ := h.LatencyNS(q.c[0])
		return ns
	}, func(q *query) int64 { return plainTrunc(p.tps[1].dense["qkv_proj"].at(max(q.c[0], 1))) })
}

func BenchmarkPerSequence(b *testing.B) {
	t, p := benchTable(b, llama)
	h, _ := t.PerSequence(1, "lm_head")
	compare(b, benchQueries(), func(q *query) int64 {
		ns, _ := h.LatencyNS(q.c[2])
		return ns
	}, func(q *query) int64 { return plainTrunc(p.tps[1].perSequence["lm_head"].at(max(q.c[2], 1))) })
}

func BenchmarkMoE(b *testing.B) {
	t, p := benchTable(b, qwen)
	h, _ := t.MoE()
	compare(b, benchQueries(), func(q *query) int64 {
		ns, _ := h.LatencyNS(q.c[0], q.c[2])
		return ns
	}, func(q *query) int64 { return p.moe(q.c[0], q.c[2]) })
}

// BenchmarkParallel is attention with skew from all cores on one table.
func BenchmarkParallel(b *testing.B) {
	t, _ := benchTable(b, llama)
	h, _ := t.Attention(1)
	queries := benchQueries()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var sum int64
		for i := 0; pb.Next(); i++ {
			q := &queries[i&(benchSize-1)]
			ns, _ := h.SkewLatencyNS(q.c[0], q.c[1], q.c[2], q.c[3], q.c[4], q.c[5])
			sum += ns
		}
		_ = sum
	})
}

// BenchmarkNew builds the tables of one tp folder from rows in memory.
func BenchmarkNew(b *testing.B) {
	bundle := referenceBundle(b, llama)
	for _, rows := range []struct {
		name   string
		bundle perfio.Bundle
	}{{"rows=merged", oneTP(bundle)}, {"rows=x2", doublingGrid(bundle)}} {
		b.Run(rows.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := New(&rows.bundle, Options{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(rows.bundle.TPs[0].Attention)), "attention-rows")
		})
	}
}

func oneTP(b *perfio.Bundle) perfio.Bundle {
	return perfio.Bundle{Dir: b.Dir, Meta: b.Meta, TPs: b.TPs[:1]}
}

// doublingGrid keeps the rows of the default sweep of the two that the
// reference's attention.csv holds.
func doublingGrid(b *perfio.Bundle) perfio.Bundle {
	doubling := func(v, from int) bool { return v == 0 || v >= from && v&(v-1) == 0 }
	one := oneTP(b)
	one.TPs = slices.Clone(one.TPs)
	one.TPs[0].Attention = slices.DeleteFunc(slices.Clone(one.TPs[0].Attention), func(r perfio.AttentionRow) bool {
		return !doubling(r.PrefillChunk, 16) || !doubling(r.KVPrefill, 16) || !doubling(r.NDecode, 1) || !doubling(r.KVDecode, 16)
	})
	return one
}

// BenchmarkOpen opens one tp folder from disk: the default sweep's 8,000 rows
// and the two sweeps' 19,000. files=all also reads and checks skew.csv, which
// parity does not need.
func BenchmarkOpen(b *testing.B) {
	whole := referenceBundle(b, llama)
	for _, rows := range []struct {
		name   string
		bundle perfio.Bundle
	}{{"rows=merged", oneTP(whole)}, {"rows=x2", doublingGrid(whole)}} {
		dir := b.TempDir()
		writeOneTP(b, dir, filepath.Join(referenceDir, "perf", filepath.FromSlash(llama)), rows.bundle.TPs[0].Attention)
		b.Run(rows.name+"/files=parity", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Open(dir, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(rows.name+"/files=all", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bundle, err := perfio.OpenBundle(dir)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := New(bundle, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// writeOneTP copies a bundle's meta.yaml and tp1, with these attention rows.
func writeOneTP(b *testing.B, dir, from string, rows []perfio.AttentionRow) {
	copyFile := func(name string) {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "tp1"), 0o755); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"meta.yaml", "tp1/dense.csv", "tp1/per_sequence.csv", "tp1/skew.csv", "tp1/skew_fit.csv"} {
		copyFile(name)
	}
	text := []byte("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\r\n")
	for _, r := range rows {
		text = fmt.Appendf(text, "%d,%d,%d,%d,%.6g\r\n", r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode, r.TimeUS)
	}
	if err := os.WriteFile(filepath.Join(dir, "tp1", "attention.csv"), text, 0o644); err != nil {
		b.Fatal(err)
	}
}
