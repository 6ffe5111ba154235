package traceloader_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// A stored calibration gives the same answers, from a folder and from any other
// file system, and is used for nothing but what it was made from.
func TestCalibrationFile(t *testing.T) {
	dir := writeMadeUpBundle(t)
	open := func() *perfio.Bundle {
		t.Helper()
		b, err := perfio.OpenBundle(dir)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ask := func(table *traceloader.Table) int64 {
		h, _ := table.Attention(1)
		ns, _ := h.BatchLatencyNS(decodesOf(100, 2000, 300))
		return ns
	}
	fresh := openAccurate(t, open())
	c, err := traceloader.Calibrate(dir, traceloader.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Content == "" || len(c.TPs) != 1 || c.TPs[0].Files == "" || len(c.TPs[0].Attention.Tried) == 0 {
		t.Errorf("calibration %+v", c)
	}
	fromFS, err := traceloader.OpenFS(os.DirFS(filepath.Dir(dir)), filepath.Base(dir), traceloader.Options{Rules: traceloader.Accurate})
	if err != nil {
		t.Fatal(err)
	}
	for name, stored := range map[string]*traceloader.Table{"folder": openAccurate(t, open()), "fs.FS": fromFS} {
		if w := stored.Warnings(); len(w) != 0 {
			t.Errorf("%s: warnings %q", name, w)
		}
		if a, b := ask(fresh), ask(stored); a != b {
			t.Errorf("%s: %d ns fresh, %d ns by the stored calibration", name, a, b)
		}
		found, _ := stored.Calibration()
		if got := found.TPs[0].Attention.Tried; len(got) != len(c.TPs[0].Attention.Tried) {
			t.Errorf("%s: tried %v", name, got)
		}
	}

	for _, test := range []struct {
		name   string
		change func(*perfio.Bundle, *traceloader.Options)
		want   string
	}{
		{"one more row", func(b *perfio.Bundle, _ *traceloader.Options) {
			b.TPs[0].Attention = append(b.TPs[0].Attention, perfio.AttentionRow{PrefillChunk: 2000, NDecode: 1, KVDecode: 16, TimeUS: 300})
		}, "tp1: files_sha256: it was made from other rows"},
		{"another time", func(b *perfio.Bundle, _ *traceloader.Options) { b.TPs[0].Attention[7].TimeUS *= 1.01 }, "stale"},
		{"other heads", func(b *perfio.Bundle, o *traceloader.Options) {
			o.Model = &perfio.ModelConfig{NumAttentionHeads: 64, NumKeyValueHeads: 4, NumHiddenLayers: 2}
		}, "stale"},
		{"another degree", func(b *perfio.Bundle, _ *traceloader.Options) { b.TPs[0].Degree = 2 }, "tp2: it does not hold this degree"},
		{"null", func(b *perfio.Bundle, _ *traceloader.Options) { b.Calibration = []byte("null") }, "version: found 0"},
		{"no JSON", func(b *perfio.Bundle, _ *traceloader.Options) { b.Calibration = b.Calibration[:100] }, "it is not used"},
		{"a changed number", func(b *perfio.Bundle, _ *traceloader.Options) {
			b.Calibration = []byte(strings.Replace(string(b.Calibration), `"p50": `, `"p50": -`, 1))
		}, "content_sha256"},
		{"a part taken out", func(b *perfio.Bundle, _ *traceloader.Options) {
			b.Calibration = []byte(strings.Replace(string(b.Calibration), `"tried"`, `"tires"`, 1))
		}, "content_sha256"},
	} {
		b := open()
		with := traceloader.Options{Rules: traceloader.Accurate}
		test.change(b, &with)
		without := with
		without.IgnoreCalibration = true
		got, err := traceloader.New(b, with)
		if err != nil {
			t.Fatal(test.name, err)
		}
		want, err := traceloader.New(b, without)
		if err != nil {
			t.Fatal(test.name, err)
		}
		if w := strings.Join(got.Warnings(), "\n"); !strings.Contains(w, test.want) {
			t.Errorf("%s: warnings %q, want %q", test.name, w, test.want)
		}
		if a, b := ask(got), ask(want); a != b {
			t.Errorf("%s: %d ns, without the file %d ns", test.name, a, b)
		}
	}

	// One that cannot be read is one that is not there, with a word.
	if err := os.Remove(filepath.Join(dir, traceloader.CalibrationFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, traceloader.CalibrationFile), 0o755); err != nil {
		t.Fatal(err)
	}
	if w := strings.Join(openAccurate(t, open()).Warnings(), "\n"); !strings.Contains(w, traceloader.CalibrationFile) {
		t.Errorf("a folder in its place: warnings %q", w)
	}
}
