package traceloader

import (
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

const referenceDir = "../../shared/reference"

// reference skips where the reference data is not beside the checkout.
func reference(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(referenceDir); err != nil {
		t.Skipf("the reference data is not beside the checkout: %v", err)
	}
}

const (
	llama = "RTXPRO6000/meta-llama/Llama-3.1-8B/bf16"
	qwen  = "RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16"
)

func referenceBundle(t testing.TB, name string) *perfio.Bundle {
	t.Helper()
	reference(t)
	b, err := perfio.OpenBundle(filepath.Join(referenceDir, "perf", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// query is one line of a golden file.
type query struct {
	tp     int
	lookup string
	layer  string
	c      [6]int
	want   int64
}

func goldenQueries(t testing.TB, name string) (queries []query) {
	t.Helper()
	reference(t)
	f, err := os.Open(filepath.Join(referenceDir, "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(z)
	for line := 1; ; line++ {
		record, err := r.Read()
		if err == io.EOF {
			return queries
		}
		if err != nil {
			t.Fatal(err)
		}
		if line == 1 {
			continue
		}
		number := func(s string) int {
			if s == "" {
				return 0
			}
			v, err := strconv.Atoi(s)
			if err != nil {
				t.Fatalf("%s:%d: %v", name, line, err)
			}
			return v
		}
		q := query{tp: number(record[0]), lookup: record[1], layer: record[2], want: int64(number(record[9]))}
		for i := range q.c {
			q.c[i] = number(record[3+i])
		}
		queries = append(queries, q)
	}
}

// ask answers a query by name, and says how.
func ask(table *Table, q query) (ns int64, a Answer, ok bool) {
	switch q.lookup {
	case "dense", "per_sequence":
		c, found := table.Dense(q.tp, q.layer)
		if q.lookup == "per_sequence" {
			c, found = table.PerSequence(q.tp, q.layer)
		}
		if !found {
			return 0, a, false
		}
		ns, ok = c.LatencyNS(q.c[0])
		explained, a := c.Explain(q.c[0])
		return ns, a, ok && explained == ns
	case "attention":
		h, _ := table.Attention(q.tp)
		ns, ok = h.LatencyNS(q.c[0], q.c[1], q.c[2], q.c[3])
		explained, a := h.Explain(q.c[0], q.c[1], q.c[2], q.c[3])
		return ns, a, ok && explained == ns
	case "attention_skew":
		h, _ := table.Attention(q.tp)
		ns, ok = h.SkewLatencyNS(q.c[0], q.c[1], q.c[2], q.c[3], q.c[4], q.c[5])
		explained, a := h.ExplainSkew(q.c[0], q.c[1], q.c[2], q.c[3], q.c[4], q.c[5])
		return ns, a, ok && explained == ns
	case "moe":
		h, _ := table.MoE()
		ns, ok = h.LatencyNS(q.c[0], q.c[1])
		explained, a := h.Explain(q.c[0], q.c[1])
		return ns, a, ok && explained == ns
	}
	return 0, a, false
}

func (p *plain) ask(q query) int64 {
	switch t := p.tps[q.tp]; q.lookup {
	case "dense":
		return plainTrunc(t.dense[q.layer].at(max(q.c[0], 1)))
	case "per_sequence":
		return plainTrunc(t.perSequence[q.layer].at(max(q.c[0], 1)))
	case "attention":
		return t.attention(q.c[0], q.c[1], q.c[2], q.c[3])
	case "attention_skew":
		return p.skew(q.tp, q.c[0], q.c[1], q.c[2], q.c[3], q.c[4], q.c[5])
	case "moe":
		return p.moe(q.c[0], q.c[1])
	}
	return 0
}

// TestGolden holds every golden query against the table, Explain, and the
// plain implementation.
func TestGolden(t *testing.T) {
	for _, g := range []struct{ file, bundle string }{
		{"RTXPRO6000__meta-llama--Llama-3.1-8B__bf16.csv.gz", llama},
		{"RTXPRO6000__Qwen--Qwen3-30B-A3B-Instruct-2507__bf16.csv.gz", qwen},
	} {
		t.Run(g.bundle, func(t *testing.T) {
			queries := goldenQueries(t, g.file)
			b := referenceBundle(t, g.bundle)
			table, err := New(b, Options{})
			if err != nil {
				t.Fatal(err)
			}
			byHand := newPlain(b)
			differ, statuses := 0, map[string]int{}
			fail := func(format string, args ...any) {
				if differ++; differ <= 10 {
					t.Errorf(format, args...)
				}
			}
			for _, q := range queries {
				ns, a, ok := ask(table, q)
				if !ok || ns != q.want {
					fail("%+v: got %d, %v", q, ns, ok)
				}
				if got := byHand.ask(q); got != q.want {
					fail("%+v: the plain implementation gives %d", q, got)
				}
				statuses[fmt.Sprintf("%s %v", q.lookup, a.Status)]++
			}
			t.Logf("%d queries, %d differ; %v", len(queries), differ, statuses)
			if len(queries) < 20000 {
				t.Errorf("found %d queries, expected at least 20,000", len(queries))
			}
		})
	}
}
