package lint

import (
	"fmt"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

// Many rows, many names, nothing but faults: work stays in proportion. The test
// would not end in the time of a test run if it grew with the square.
func TestHostile(t *testing.T) {
	b := cleanBundle(t)
	for i := range b.TPs {
		tp := &b.TPs[i]
		tp.Attention, tp.Dense = nil, nil
		for pc := 1; pc <= 200; pc++ {
			for kd := 1; kd <= 200; kd++ {
				tp.Attention = append(tp.Attention, perfio.AttentionRow{PrefillChunk: pc, NDecode: 1, KVDecode: kd, TimeUS: float64(1 + (pc*kd)%2*1e6)})
			}
		}
		for n := range 20_000 {
			tp.Dense = append(tp.Dense, perfio.DenseRow{Layer: fmt.Sprintf("</script>\u202e%d", n), Tokens: 1, TimeUS: 1e-3})
		}
	}
	findings := Check(b)
	if len(findings) < 20_000 {
		t.Errorf("%d findings", len(findings))
	}
	for _, f := range findings {
		if len(f.Places) > MaxPlaces {
			t.Fatalf("%+v", f)
		}
	}
}

// What is there to be copied into a shell runs nothing of a bundle's names.
func TestAgainIsQuoted(t *testing.T) {
	for name, want := range map[string]string{
		"meta-llama/Llama-3.1-8B": "meta-llama/Llama-3.1-8B",
		"":                        "''",
		"a b":                     "'a b'",
		"$(touch pwned)`id`":      "'$(touch pwned)`id`'",
		"it's; rm -rf ~ #":        `'it'\''s; rm -rf ~ #'`,
		"-x\n\u202e":              "'-x\n\u202e'",
	} {
		if got := shellWord(name); got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
	b := cleanBundle(t)
	set(b, "$(touch pwned)", "model")
	dense(b, 1, "rotary_emb", 5, 128, 128)
	found := false
	for _, f := range Check(b) {
		if f.Again != "" && strings.Contains(f.Again, "touch") {
			found = true
			if !strings.Contains(f.Again, "--model '$(touch pwned)' ") {
				t.Errorf("again: %s", f.Again)
			}
		}
	}
	if !found {
		t.Error("no finding says how to measure again")
	}
}
