package report_test

import (
	"io"
	"os"
	"testing"

	"github.com/layerprof/layerprof/internal/archive"
	"github.com/layerprof/layerprof/internal/report"
)

// The largest bundle that ships, and one with batches kept for validation.
func BenchmarkWrite(b *testing.B) {
	f, err := os.Open("../../perf/bundles/data/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16.tar.zst")
	if err != nil {
		b.Fatal(err)
	}
	packed, err := archive.Open(f)
	if err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	for _, s := range []struct {
		name   string
		source report.Source
	}{
		{"bundle=rtxpro6000-llama", report.Source{Name: "llama.tar.zst", Files: packed}},
		{"bundle=h200-llama", source(llama)},
	} {
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := report.Write(io.Discard, []report.Source{s.source}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
