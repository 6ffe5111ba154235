package judge

import (
	"slices"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// padded gives a bundle the times of a kernel whose decodes all cost as much as
// the longest one.
func padded(b *perfio.Bundle, backend string, t *testing.T) *perfio.Bundle {
	us := func(pc, kp, n, longest int) float64 {
		tiles := 0
		if pc > 0 {
			tiles = (pc + 127) / 128 * ((kp + pc + 127) / 128)
		}
		return 10 + 0.003*float64(n*longest) + 1.5*float64(tiles)
	}
	out := *b
	out.Dir, out.Meta = "", b.Meta.Clone()
	if err := out.Meta.Set(backend, "attention_backend"); err != nil {
		t.Fatal(err)
	}
	tp := perfio.TP{Degree: 1}
	for _, r := range b.TPs[0].Attention {
		r.TimeUS = us(r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode)
		tp.Attention = append(tp.Attention, r)
	}
	for _, r := range b.TPs[0].Skew {
		r.TMeanUS, r.TMaxUS, r.TSkewUS = 3*us(r.PC, r.KP, r.N, r.KVMean), 3*us(r.PC, r.KP, r.N, r.KVBig), 3*us(r.PC, r.KP, r.N, r.KVBig)
		r.Alpha, r.HasAlpha = 1, r.TMaxUS > r.TMeanUS
		tp.Skew = append(tp.Skew, r)
	}
	out.TPs = []perfio.TP{tp}
	return &out
}

// Skew data that are wrong themselves do not put another basis in the place of
// the kernel that runs.
func TestWrongSkewKeepsTheKernel(t *testing.T) {
	b := *openReference(t, h200)
	b.Dir = ""
	tp := b.TPs[0]
	tp.Skew = slices.Clone(tp.Skew)
	for i := range tp.Skew { // times of other rows
		other := (i*577 + 300) % len(tp.Skew)
		tp.Skew[i].TSkewUS = b.TPs[0].Skew[other].TSkewUS
	}
	b.TPs = []perfio.TP{tp}
	table, err := traceloader.New(&b, traceloader.Options{Rules: traceloader.Accurate, Lenient: true})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := table.Calibration()
	warned := slices.ContainsFunc(table.Warnings(), func(w string) bool {
		return strings.HasPrefix(w, "tp1: skew.csv contradicts fa3") && strings.Contains(w, "nothing explains it")
	})
	if got := c.TPs[0].Attention; got.Basis.String() != "fa3" || !warned {
		t.Errorf("basis %v, %+v, warnings %q", got.Basis, got.Skew, table.Warnings())
	}
}

// A bundle whose skew.csv contradicts the kernel that meta.yaml names is
// predicted by a basis that explains it, whatever meta.yaml says.
func TestContradictedKernel(t *testing.T) {
	if testing.Short() {
		t.Skip("three calibrations a fold")
	}
	reference := openReference(t, h200)
	for _, backend := range []string{"FlashAttention 3", "FlashAttention 2", "PADDED"} {
		b := padded(reference, backend, t)
		tests := []string{"T9"}
		if backend == "FlashAttention 3" {
			tests = []string{"T5", "T9"}
		}
		r, err := Tests(b, Options{Tests: tests, Rules: []string{accurateName}})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range r.Tests {
			t.Logf("%s: %s %s: %d, %.2f/%.1f/%.1f", backend, x.Test, x.Rules, x.N, x.P50, x.P90, x.P99)
			if x.P50 > 1 || x.P90 > 3 {
				t.Errorf("%s: %s: %.1f/%.1f, want at most 1/3", backend, x.Test, x.P50, x.P90)
			}
		}
		table, err := traceloader.New(b, traceloader.Options{Rules: traceloader.Accurate, Lenient: true})
		if err != nil {
			t.Fatal(err)
		}
		warned := slices.ContainsFunc(table.Warnings(), func(w string) bool {
			return strings.HasPrefix(w, "tp1: skew.csv contradicts fa") && strings.Contains(w, ": padded is used (")
		})
		if !warned {
			t.Errorf("%s: warnings %q", backend, table.Warnings())
		}
	}
}
