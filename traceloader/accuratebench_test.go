package traceloader_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

func accurateReference(b testing.TB, path string) *perfio.Bundle {
	b.Helper()
	dir := "../../shared/reference/" + path
	if _, err := os.Stat(dir); err != nil {
		b.Skipf("reference data not present: %v", err)
	}
	bundle, err := perfio.OpenBundle(dir)
	if err != nil {
		b.Fatal(err)
	}
	return bundle
}

var accurateBundles = map[string]string{
	"fa2": "perf/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16",
	"fa3": "h200/perf/H200/meta-llama/Llama-3.1-8B/bf16",
}

func BenchmarkAccurateNew(b *testing.B) {
	for name, path := range accurateBundles {
		b.Run("kernel="+name, func(b *testing.B) {
			bundle := accurateReference(b, path)
			for b.Loop() {
				if _, err := traceloader.New(bundle, traceloader.Options{Rules: traceloader.Accurate, IgnoreCalibration: true}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// With calibration.json beside the bundle nothing is fitted or tried, but what
// the model leaves over of each row and the tables are worked out again.
func BenchmarkAccurateStored(b *testing.B) {
	for name, path := range accurateBundles {
		b.Run("kernel="+name, func(b *testing.B) {
			from := accurateReference(b, path).Dir
			dir := filepath.Join(b.TempDir(), "hardware", "org", "model", filepath.Base(from))
			if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
				b.Fatal(err)
			}
			if _, err := traceloader.Calibrate(dir, traceloader.Options{}); err != nil {
				b.Fatal(err)
			}
			bundle, err := perfio.OpenBundle(dir)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				table, err := traceloader.New(bundle, traceloader.Options{Rules: traceloader.Accurate})
				if err != nil {
					b.Fatal(err)
				}
				if w := table.Warnings(); len(w) > 0 {
					b.Fatal(w)
				}
			}
		})
	}
}

func BenchmarkAccurateAttention(b *testing.B) {
	for name, path := range accurateBundles {
		bundle := accurateReference(b, path)
		table, err := traceloader.New(bundle, traceloader.Options{Rules: traceloader.Accurate, IgnoreCalibration: true})
		if err != nil {
			b.Fatal(err)
		}
		h, _ := table.Attention(1)
		var list, mixed []perfio.Request
		for i := range 64 {
			list = append(list, perfio.Request{NewTokens: 1, KVHistory: 100 + i*i*3%4000 + 37*i})
		}
		mixed = append(append(mixed, list[1:]...), perfio.Request{NewTokens: 700, KVHistory: 512})
		b.Run("kernel="+name+"/form=uniform", func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				h.LatencyNS(i%3*300, i%5*700, 1+i%200, 100+i*37%9000)
			}
		})
		b.Run("kernel="+name+"/form=skew", func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				kd := 100 + i*37%9000
				h.SkewLatencyNS(i%3*300, i%5*700, 2+i%200, kd, 3*kd, kd/3)
			}
		})
		for _, l := range []struct {
			name     string
			requests []perfio.Request
		}{{"decode64", list}, {"mixed64", mixed}} {
			b.Run("kernel="+name+"/form="+l.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					h.BatchLatencyNS(l.requests)
				}
			})
		}
	}
}

func BenchmarkDecodeMemo(b *testing.B) {
	for name, path := range accurateBundles {
		b.Run("kernel="+name, func(b *testing.B) {
			table, err := traceloader.New(accurateReference(b, path), traceloader.Options{Rules: traceloader.Accurate, IgnoreCalibration: true})
			if err != nil {
				b.Fatal(err)
			}
			h, _ := table.Attention(1)
			m := traceloader.NewDecodeMemo(h)
			list := make([]perfio.Request, 64)
			reset := func() {
				for i := range list {
					list[i] = perfio.Request{NewTokens: 1, KVHistory: 100 + i*i*3%4000 + 37*i}
				}
			}
			reset()
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				m.LatencyNS(list)
				for i := range list {
					list[i].KVHistory++
				}
				if n++; n%1000 == 0 {
					reset()
				}
			}
		})
	}
}
