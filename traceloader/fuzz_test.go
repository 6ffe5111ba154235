package traceloader

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

// FuzzNew builds bundles of any numbers. New takes or refuses them; a table
// answers any query without panicking, as the searched grid and the plain
// implementation do.
func FuzzNew(f *testing.F) {
	f.Add([]byte{}, uint64(1), false)
	f.Add([]byte{0, 0, 0, 1, 0, 16, 0, 9, 0, 16, 0, 0, 0, 4, 0, 32, 1, 9}, uint64(2), true)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0}, uint64(3), true)
	f.Fuzz(func(t *testing.T, data []byte, seed uint64, lenient bool) {
		r := rand.New(rand.NewPCG(seed, 4))
		b := fuzzBundle(data)
		table, err := New(b, Options{Lenient: lenient, Refuse: seed%3 == 0})
		if err != nil {
			if table != nil {
				t.Fatal("a table beside an error")
			}
			return
		}
		p := newPlain(b)
		table.Coverage()
		for range 30 {
			q := query{tp: 1, layer: "x", lookup: pick(r, "dense", "attention", "attention_skew", "moe")}
			for i := range q.c {
				q.c[i] = int(r.Uint64() >> (12 + r.IntN(52))) // exact in float64
				if r.IntN(3) > 0 {
					q.c[i] = r.IntN(1 << 16)
				}
			}
			ns, a, ok := ask(table, q)
			if ok != (ns > 0) || ok && a.Status == Unanswered {
				t.Fatalf("%+v: got %d, %v, %+v", q, ns, ok, a)
			}
			if !ok {
				continue
			}
			if want := p.ask(q); ns != want && ns < math.MaxInt64 {
				t.Fatalf("%+v: got %d, the plain implementation gives %d", q, ns, want)
			}
		}
	})
}

// fuzzBundle makes a row of each kind of five 16-bit numbers; a set low bit of
// the last makes a key large or negative.
func fuzzBundle(data []byte) *perfio.Bundle {
	tp := perfio.TP{Degree: 1}
	for len(data) >= 10 {
		var v [5]int
		for i := range v {
			v[i] = int(binary.BigEndian.Uint16(data[2*i:]))
		}
		data = data[10:]
		us := float64(v[4]) / 16
		switch v[4] % 97 {
		case 1:
			v[0] <<= 15
		case 2:
			v[1] = -v[1]
		case 3:
			us = math.Inf(1)
		}
		tp.Attention = append(tp.Attention, perfio.AttentionRow{PrefillChunk: v[0], KVPrefill: v[1], NDecode: v[2], KVDecode: v[3], TimeUS: us})
		tp.Dense = append(tp.Dense, perfio.DenseRow{Layer: "x", Tokens: v[0], TimeUS: us})
		tp.MoE = append(tp.MoE, perfio.MoERow{Tokens: v[0], ActivatedExperts: v[1], TimeUS: us})
	}
	return &perfio.Bundle{TPs: []perfio.TP{tp}}
}
