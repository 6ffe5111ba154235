package perfio_test

import (
	"compress/gzip"
	"os"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

func TestKindOf(t *testing.T) {
	d := func(kv int) perfio.Request { return perfio.Request{NewTokens: 1, KVHistory: kv} }
	p := perfio.Request{NewTokens: 16, KVHistory: 4}
	for _, test := range []struct {
		requests []perfio.Request
		want     string
	}{
		{nil, ""},
		{[]perfio.Request{d(0)}, "decode"},
		{[]perfio.Request{d(100), d(100)}, "decode"},
		{[]perfio.Request{d(125), d(75)}, "decode"}, // 1.25 times the mean is not above it
		{[]perfio.Request{d(126), d(74)}, "decode_skew"},
		{[]perfio.Request{p}, "prefill"},
		{[]perfio.Request{d(10), p}, "mixed"},
		{[]perfio.Request{d(10), d(1), p}, "mixed_skew"},
		{[]perfio.Request{p, p}, "multi"},
		{[]perfio.Request{p, d(9), p}, "multi"},
	} {
		if got := perfio.KindOf(test.requests); got != test.want {
			t.Errorf("KindOf(%v) = %q, want %q", test.requests, got, test.want)
		}
	}
}

// The kinds that the reference's validation file says are those of the rule, but
// for skew: there it says how a batch was drawn, which for a few batches is not
// what the rule makes of the lengths that came of it.
func TestKindOfReference(t *testing.T) {
	const file = "../../shared/reference/h200/validation_Llama-3.1-8B.jsonl.gz"
	skipWithout(t, file)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	r := perfio.NewBatchReader(z, file)
	n, differ := 0, 0
	for ; r.Scan(); n++ {
		b, err := r.Record()
		if err != nil {
			t.Fatal(err)
		}
		got := perfio.KindOf(b.Requests)
		if got != b.Kind {
			differ++
		}
		if strings.TrimSuffix(got, "_skew") != strings.TrimSuffix(b.Kind, "_skew") {
			t.Errorf("line %d: KindOf = %q, the file says %q", r.Line(), got, b.Kind)
		}
	}
	if r.Err() != nil || n == 0 {
		t.Errorf("%d lines, %v", n, r.Err())
	}
	if 20*differ > n {
		t.Errorf("%d of %d batches have another kind, too many", differ, n)
	}
	t.Logf("%d batches, %d drawn with skew and without it by the rule or the other way about", n, differ)
}
