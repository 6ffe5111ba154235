package perfio_test

import (
	"bytes"
	"encoding/csv"
	"os"
	"strconv"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

func BenchmarkOpenBundle(b *testing.B) {
	skipWithout(b, referenceBundles[0])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := perfio.OpenBundle(referenceBundles[0]); err != nil {
			b.Fatal(err)
		}
	}
}

// The row scanner against encoding/csv doing the same conversions.
func BenchmarkReadSkew(b *testing.B) {
	file := referenceBundles[0] + "/tp1/skew.csv"
	skipWithout(b, file)
	data, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("reader=perfio", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r := perfio.NewSkewReader(bytes.NewReader(data), "skew.csv")
			for r.Scan() {
				if _, err := r.Record(); err != nil {
					b.Fatal(err)
				}
			}
			if r.Err() != nil {
				b.Fatal(r.Err())
			}
		}
	})
	b.Run("reader=encoding_csv", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r := csv.NewReader(bytes.NewReader(data))
			r.ReuseRecord = true
			for header := true; ; header = false {
				fields, err := r.Read()
				if err != nil {
					break
				}
				if header {
					continue
				}
				for i, f := range fields {
					switch i {
					case 0:
					case 3, 4, 10, 11, 12, 13:
						if f != "" {
							if _, err := strconv.ParseFloat(f, 64); err != nil {
								b.Fatal(err)
							}
						}
					default:
						if _, err := strconv.Atoi(f); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
		}
	})
}
