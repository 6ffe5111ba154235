package report_test

import (
	"io"
	"os"
	"testing"

	"github.com/layerprof/layerprof/internal/archive"
	"github.com/layerprof/layerprof/internal/report"
)

// packedSource is one of the packed bundles that ship.
func packedSource(b *testing.B, name string) report.Source {
	b.Helper()
	f, err := os.Open("../../perf/bundles/data/" + name + "/bf16.tar.zst")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	files, err := archive.Open(f)
	if err != nil {
		b.Fatal(err)
	}
	return report.Source{Name: name, Files: files}
}

// The largest bundles that ship, alone and side by side, and one with batches
// kept for validation and whole steps.
func BenchmarkWrite(b *testing.B) {
	first, second := packedSource(b, "RTXPRO6000/meta-llama/Llama-3.1-8B"), packedSource(b, "RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507")
	for _, s := range []struct {
		name    string
		sources []report.Source
	}{
		{"bundles=rtxpro6000-llama", []report.Source{first}},
		{"bundles=rtxpro6000-llama-and-qwen", []report.Source{first, second}},
		{"bundles=h200-llama", []report.Source{source(llama)}},
	} {
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := report.Write(io.Discard, s.sources); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
