package main

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
)

// Every time of the bundle stands in the export, beside what it is of.
func TestExport(t *testing.T) {
	dir := cleanBundle(t)
	status, stdout, stderr := call(t, "", "export", dir)
	if status != exitOK {
		t.Fatal(stderr)
	}
	records, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for i, name := range records[0] {
		at[name] = i
	}
	want, got := map[string]int{}, map[string]int{}
	for _, tp := range bundletest.Bundle().TPs {
		want["dense"] += len(tp.Dense)
		want["per_sequence"] += len(tp.PerSequence)
		want["attention"] += len(tp.Attention)
		want["moe"] += len(tp.MoE)
		want["skew"] += 3 * len(tp.Skew)
		want["step"] += 15 * len(tp.Steps)
	}
	for _, r := range records[1:] {
		got[r[at["table"]]]++
		line, err := strconv.Atoi(r[at["line"]])
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Split(string(bundletest.Files()[r[at["file"]]].Data), "\n")[line-1]
		if us := r[at["time_us"]]; !strings.Contains(text, us) {
			t.Errorf("%v: %s is not in %q", r, us, text)
		}
		if r[at["hardware"]] != "SYNTHETIC" || r[at["origin"]] != "synthetic" || r[at["runs"]] != "1" {
			t.Fatalf("%v", r)
		}
		if r[at["table"]] == "step" && (r[at["layer"]] != perfio.ModeEagerSync || r[at["regime"]] != "decode" || r[at["kv_decode"]] != "20.5" ||
			r[at["kvs"]] != "20" || r[at["kv_big"]] != "21" || r[at["depth"]] != "2" || r[at["graph"]] != "NONE" || r[at["steps"]] != "8" || r[at["padded_tokens"]] != r[at["n_decode"]]) {
			t.Errorf("a whole step: %v", r)
		}
	}
	for table, n := range want {
		if got[table] != n {
			t.Errorf("%s: %d lines, want %d", table, got[table], n)
		}
	}
	file := filepath.Join(t.TempDir(), "all.csv")
	if status, _, stderr := call(t, "", "export", dir, dir, "-o", file); status != exitOK {
		t.Fatal(stderr)
	}
	if text, err := os.ReadFile(file); err != nil || strings.Count(string(text), "\n") != 2*len(records)-1 {
		t.Errorf("two bundles: %v, %d lines", err, strings.Count(string(text), "\n"))
	}
	if status, _, _ := call(t, "", "export", filepath.Join(dir, "absent")); status != exitFailed {
		t.Errorf("absent: status %d", status)
	}
}
