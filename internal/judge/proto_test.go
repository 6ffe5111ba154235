package judge

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

func TestProto(t *testing.T) {
	if os.Getenv("TESTS") == "" {
		t.Skip()
	}
	for _, path := range []string{"perf/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16", "perf/RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16"} {
		b := openReference(t, path)
		o := Options{Tests: strings.Split(os.Getenv("TESTS"), ",")}
		if os.Getenv("RULES") != "" {
			o.Rules = strings.Split(os.Getenv("RULES"), ",")
		}
		if os.Getenv("TP") == "1" {
			o.TPs = []int{1}
		}
		if os.Getenv("TP") == "2" {
			o.TPs = []int{2}
		}
		r, err := Tests(b, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range r.Tests {
			fmt.Printf("%s tp%d %s %s n=%d %.2f/%.1f/%.1f bias %.2f sigma %.0f %.0f\n", path[16:22], x.TP, x.Test, x.Rules, x.N, x.P50, x.P90, x.P99, x.Bias, x.Within1, x.Within2)
		}
	}
}

func readShots(t *testing.T) []perfio.BatchRow {
	f, err := os.Open(reference + "/h200/validation_Llama-3.1-8B.jsonl.gz")
	if err != nil {
		t.Skip(err)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var out []perfio.BatchRow
	s := bufio.NewScanner(z)
	s.Buffer(nil, 1<<24)
	for s.Scan() {
		var b perfio.BatchRow
		if err := json.Unmarshal(s.Bytes(), &b); err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func TestShotsProto(t *testing.T) {
	if os.Getenv("SHOTS") == "" {
		t.Skip()
	}
	b := openReference(t, "h200/perf/H200/meta-llama/Llama-3.1-8B/bf16")
	t0 := time.Now()
	tab, err := traceloader.New(b, traceloader.Options{Rules: traceloader.Accurate})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("open", time.Since(t0))
	c, _ := tab.Calibration()
	j, _ := json.Marshal(c)
	fmt.Println(string(j))
	r, err := Shots(b, readShots(t), Options{Rules: RuleNames()})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range r.Shots {
		if x.Layer == "attention" || x.Kind == "all" {
			fmt.Printf("%-10s %-12s %-16s n=%d %.2f/%.1f/%.1f/%.1f bias %.2f sigma %.0f %.0f\n", x.Layer, x.Kind, x.Rules, x.N, x.P50, x.P90, x.P99, x.Max, x.Bias, x.Within1, x.Within2)
		}
	}
}
