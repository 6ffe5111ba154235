package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
)

const realTPModel = "Qwen/Qwen3-30B-A3B-Instruct-2507"

// realTPBundle writes the clean bundle as an engine of two ranks would have it.
func realTPBundle(t *testing.T) string {
	t.Helper()
	b := bundletest.Bundle()
	for key, value := range map[string]string{"tp_mode": perfio.TPModeReal, "model": realTPModel} {
		if err := b.Meta.Set(value, key); err != nil {
			t.Fatal(err)
		}
	}
	for key, value := range map[string]int{"max_model_len": 4096, "max_num_seqs": 9} { // so that every row can be measured
		if err := b.Meta.Set(value, "engine_effective", key); err != nil {
			t.Fatal(err)
		}
	}
	two := b.TP(2)
	two.Collectives = bundletest.Collectives()
	two.MoE = slices.Clone(b.TP(1).MoE)
	for i := range two.Dense { // a rank's own, tp_stable or not
		two.Dense[i].TimeUS *= 1.25
	}
	for i := range two.MoE {
		two.MoE[i].TimeUS *= 0.5
	}
	dir := filepath.Join(t.TempDir(), "source")
	if err := perfio.WriteBundle(dir, b); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Real degrees go through the whole pipeline: every table, collectives among
// them, is the source's, under a name of its own.
func TestRealTPReplay(t *testing.T) {
	source, out := realTPBundle(t), t.TempDir()
	args := []string{
		"run", "--driver", "replay:" + source, "--from-bundle", source, "--model", realTPModel, "--hardware", "H100", "--out", out, "--tp", "1,2",
	}
	if got := runCommand(t, args...); got.status == exitOK || !strings.Contains(got.stderr, "tp_mode: found real, expected emulated") {
		t.Errorf("emulated: status %d, %s", got.status, got.stderr)
	}
	got := runCommand(t, append(args, "--tp-mode", "real")...)
	if got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	dir := filepath.Join(out, "H100", filepath.FromSlash(realTPModel), "bf16"+perfio.RealTPSuffix)
	files, err := filepath.Glob(filepath.Join(source, "tp*", "*.csv"))
	if err != nil || len(files) < 12 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		name, _ := filepath.Rel(source, file)
		want, _ := os.ReadFile(file)
		if text, err := os.ReadFile(filepath.Join(dir, name)); filepath.Base(name) != perfio.SkewFitFile && (err != nil || string(text) != string(want)) {
			t.Errorf("%s: %v, or other bytes:\n%s\nexpected\n%s", name, err, text, want)
		}
	}
	b, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	if b.Meta.TPMode() != perfio.TPModeReal || b.TP(1).Collectives != nil || len(b.TP(2).Collectives) != len(bundletest.Collectives()) {
		t.Errorf("tp_mode %s, %d and %d collectives", b.Meta.TPMode(), len(b.TP(1).Collectives), len(b.TP(2).Collectives))
	}
	// The journal alone gives them again.
	if err := os.Remove(filepath.Join(dir, "tp2", perfio.CollectivesFile)); err != nil {
		t.Fatal(err)
	}
	if got := runCommand(t, "resume", dir); got.status != exitOK {
		t.Errorf("resume: status %d: %s", got.status, got.stderr)
	}
	if again, err := perfio.OpenBundle(dir); err != nil || len(again.TP(2).Collectives) != len(bundletest.Collectives()) {
		t.Errorf("resume: %v", err)
	}
}

func TestRealTPUsage(t *testing.T) {
	small := smallSweep("--out", t.TempDir(), "--tp", "2", "--tp-mode", "real")
	if got := runCommand(t, append([]string{"run", "--driver", "roofline"}, small...)...); got.status == exitOK || !strings.Contains(got.stderr, "expected emulated") {
		t.Errorf("roofline: status %d, %s", got.status, got.stderr)
	}
	if got := runCommand(t, append([]string{"plan"}, append(small, "--tp-mode", "half")...)...); got.status != exitUsage || !strings.Contains(got.stderr, `found "half"`) {
		t.Errorf("status %d, %s", got.status, got.stderr)
	}
}
