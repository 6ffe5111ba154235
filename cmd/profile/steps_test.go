package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/layerprof/layerprof/perfio"
)

// servingWorker is the driver that starts the example worker which serves.
func servingWorker(t *testing.T) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 for the example worker")
	}
	path, err := filepath.Abs("../../examples/worker/serving.py")
	if err != nil {
		t.Fatal(err)
	}
	return "exec:" + python + " " + path
}

func stepBundle(t *testing.T, out string) *perfio.Bundle {
	t.Helper()
	b, err := perfio.OpenBundle(filepath.Join(out, "H100", "meta-llama", "Llama-3.1-8B", "bf16"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRunSteps(t *testing.T) {
	worker, out := servingWorker(t), t.TempDir()
	args := append([]string{"run", "--driver", worker, "--out", out, "--only", "step", "--max-model-len", "4096"}, smallSweep()...)
	got := runCommand(t, append(args, "--step-modes", "graph_async,eager_sync", "--step-layers", "8,4")...)
	if got.status != exitOK || !strings.Contains(got.stdout, "of 16 workloads measured, 0 workloads had been before") {
		t.Fatalf("status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
	b := stepBundle(t, out)
	depths := make(map[string]int)
	for _, row := range b.TP(1).Steps {
		depths[row.Mode+" "+strconv.Itoa(row.Layers)]++
	}
	if len(depths) != 4 || depths["graph_async 8"] == 0 {
		t.Errorf("rows by mode and depth: %v", depths)
	}
	if sizes := b.Meta.CaptureSizes(1, perfio.ModeGraphAsync); len(sizes) == 0 {
		t.Error("meta.yaml has no capture sizes")
	}
	// A plain run of dense shots into the same bundle keeps the steps, and a
	// replay of it has both.
	got = runCommand(t, append([]string{"run", "--driver", worker, "--out", out, "--only", "dense", "--max-model-len", "4096"}, smallSweep()...)...)
	if got.status != exitOK {
		t.Fatalf("status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
	b = stepBundle(t, out)
	if len(b.TP(1).Dense) == 0 || len(b.TP(1).Steps) == 0 {
		t.Fatal("one of the two tables is lost")
	}
	again := t.TempDir()
	got = runCommand(t, append([]string{"run", "--driver", "replay:" + b.Dir, "--from-bundle", b.Dir, "--out", again}, smallSweep()...)...)
	if got.status != exitOK || !strings.Contains(got.stdout, "of 4 workloads measured") {
		t.Fatalf("status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
	for _, name := range []string{perfio.StepFile, perfio.DenseFile} {
		want, err := os.ReadFile(filepath.Join(b.Dir, "tp1", name))
		if err != nil {
			t.Fatal(err)
		}
		found, err := os.ReadFile(filepath.Join(stepBundle(t, again).Dir, "tp1", name))
		if err != nil || string(found) != string(want) {
			t.Errorf("%s replayed differs, %v", name, err)
		}
	}
}

// kill -9 at any moment costs at most the workload that was being served.
func TestStepsKilled(t *testing.T) {
	worker := servingWorker(t)
	args := func(out string) []string {
		return append([]string{"run", "--driver", worker, "--out", out, "--only", "step", "--max-model-len", "4096", "--log-format", "json"}, smallSweep()...)
	}
	whole := t.TempDir()
	if got := runCommand(t, args(whole)...); got.status != exitOK {
		t.Fatal(got.stderr)
	}
	out := t.TempDir()
	journal := filepath.Join(out, "H100", "meta-llama", "Llama-3.1-8B", "bf16", ".journal", "shots.jsonl")
	for round := range 3 {
		cmd, _, _ := profileProcess(args(out)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		// Killed as soon as the journal has grown by some workloads.
		for grown := 0; grown < 2*round+1; time.Sleep(time.Millisecond) {
			text, _ := os.ReadFile(journal)
			grown = strings.Count(string(text), `"k":"steps"`)
			select {
			case <-done:
				t.Fatalf("round %d: the run ended before it was killed", round)
			default:
			}
		}
		_ = cmd.Process.Kill()
		<-done
	}
	got := runCommand(t, args(out)...)
	if got.status != exitOK || strings.Contains(got.stdout, " 0 workloads had been before") {
		t.Fatalf("status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
	a, b := stepBundle(t, whole), stepBundle(t, out)
	if len(a.TP(1).Steps) != len(b.TP(1).Steps) {
		t.Errorf("%d rows, expected %d", len(b.TP(1).Steps), len(a.TP(1).Steps))
	}
}

func TestPlanSteps(t *testing.T) {
	status, out, stderr := runProfile(t, append([]string{"plan", "--driver", servingWorker(t), "--only", "step", "--json"}, smallSweep()...)...)
	if status != exitOK {
		t.Fatal(stderr)
	}
	var plan struct {
		Steps []plannedSteps `json:"steps"`
	}
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		t.Fatal(err)
	}
	if len(plan.Steps) != 12 || plan.Steps[0].Mode != perfio.ModeGraphSync || plan.Steps[0].Layers != 32 || plan.Steps[1].Steps < 20 {
		t.Errorf("%+v", plan.Steps)
	}
	status, out, _ = runProfile(t, append([]string{"plan", "--driver", servingWorker(t)}, smallSweep()...)...)
	if status != exitOK || !strings.Contains(out, "whole steps, about:") || !strings.Contains(out, "ladder") {
		t.Errorf("status %d:\n%s", status, out)
	}
}

func TestStepsUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--driver", "roofline", "--only", "step"}, "has no whole steps"},
		{[]string{"--driver", servingWorker(t), "--only", "step", "--tp", "2"}, "step without tp 1"},
		{[]string{"--driver", servingWorker(t), "--only", "step", "--step-modes", "fast"}, `step-modes: found "fast"`},
		{[]string{"--driver", servingWorker(t), "--only", "step", "--step-layers", "33"}, "step-layers: found 33"},
		{[]string{"--driver", servingWorker(t), "--only", "steps"}, `only: found "steps"`},
	} {
		args := append(append([]string{"run", "--out", t.TempDir()}, smallSweep()...), c.args...)
		if status, _, stderr := runProfile(t, args...); status != exitUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: status %d, %q, expected %d and %q", c.args, status, stderr, exitUsage, c.want)
		}
	}
}
