package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/stepjudge"
	"github.com/layerprof/layerprof/perfio"
)

// servedBundle is a sweep with steps of the example worker's device.
func servedBundle(t *testing.T, worker string) string {
	t.Helper()
	out := t.TempDir()
	got := runCommand(t, append([]string{"run", "--driver", worker, "--out", out, "--max-model-len", "4096"}, smallSweep()...)...)
	if got.status != exitOK || !strings.Contains(got.stdout, "of 12 workloads measured") {
		t.Fatalf("status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
	return filepath.Join(out, "H100", "meta-llama", "Llama-3.1-8B", "bf16")
}

// From the sweep to the judgement: what the example device serves is what its
// bundle says. The device's kernels are a function that lookups between rows do
// not meet exactly; its decodes stand on rows.
func TestServeCheck(t *testing.T) {
	worker := servingWorker(t)
	bundle, out := servedBundle(t, worker), t.TempDir()
	got := runCommand(t, "serve-check", bundle, "--driver", worker, "--out", out, "--max-error", "10")
	if got.status != exitOK {
		t.Fatalf("status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
	for _, name := range []string{"requests.csv", "report.txt", "report.json", "steps_graph_async.jsonl.gz", "requests_eager_sync.csv"} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Error(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(out, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Modes []struct {
			stepjudge.Report
			GPU    string `json:"gpu"`
			Served int    `json:"served_requests"`
		} `json:"modes"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Modes) != 3 {
		t.Fatalf("%d modes", len(report.Modes))
	}
	for _, m := range report.Modes {
		if m.GPU != "example device" || m.Served < 16 || len(m.Requests) != 3 {
			t.Errorf("%s: %s, %d requests, %d figures", m.Mode, m.GPU, m.Served, len(m.Requests))
		}
		for _, f := range m.Steps {
			if f.N < 50 || f.KernelsOnly || f.Kind == stepjudge.KindDecode && f.P50 > 0.1 || f.P50 > 5 {
				t.Errorf("%s %s: %d steps, median error %.2f%%", m.Mode, f.Kind, f.N, f.P50)
			}
		}
	}
	// The list that was made is one to give: the same steps, and a limit that no
	// bundle keeps.
	again := t.TempDir()
	got = runCommand(t, "serve-check", bundle, "--driver", worker, "--out", again, "--mode", perfio.ModeEagerSync,
		"--requests", filepath.Join(out, "requests.csv"), "--max-error", "0.001")
	if got.status != exitExceeded || !strings.Contains(got.stderr, "expected at most 0.001%") {
		t.Errorf("status %d, %q", got.status, got.stderr)
	}
	for _, name := range []string{"requests_eager_sync.csv"} {
		a, errA := os.ReadFile(filepath.Join(out, name))
		b, errB := os.ReadFile(filepath.Join(again, name))
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Errorf("%s: served twice differs, %v, %v", name, errA, errB)
		}
	}
}

func TestServeCheckUsage(t *testing.T) {
	worker := servingWorker(t)
	plain := smallBundle(t) // it has no steps
	long := filepath.Join(t.TempDir(), "long.csv")
	if err := os.WriteFile(long, []byte("request,input_tokens,output_tokens,arrival_ns\na,200000,7,0\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.csv")
	if err := os.WriteFile(bad, []byte("request,input_tokens,output_tokens,arrival_ns\na,0,7,0\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	withSteps := servedBundle(t, worker)
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{}, exitUsage, "accepts 1 arg"},
		{[]string{plain, "--driver", worker}, exitUsage, "the bundle has no steps of any mode"},
		{[]string{plain, "--driver", "roofline"}, exitUsage, "serves no requests"},
		{[]string{withSteps, "--driver", worker, "--mode", "fast"}, exitUsage, `mode: found "fast"`},
		{[]string{withSteps, "--driver", worker, "--layers", "-1"}, exitUsage, "layers: found -1"},
		// Flags that have no use here are not taken.
		{[]string{withSteps, "--driver", worker, "--tp", "2"}, exitUsage, "unknown flag: --tp"},
		{[]string{withSteps, "--driver", worker, "--step-modes", "zzz"}, exitUsage, "unknown flag: --step-modes"},
		{[]string{withSteps, "--driver", worker, "--plan", "lean"}, exitUsage, "unknown flag: --plan"},
		{[]string{withSteps, "--driver", worker, "--only", "step"}, exitUsage, "unknown flag: --only"},
		{[]string{withSteps, "--driver", worker, "--iterations", "3"}, exitUsage, "unknown flag: --iterations"},
		{[]string{withSteps, "--driver", worker, "--skip-skew"}, exitUsage, "unknown flag: --skip-skew"},
		{[]string{withSteps, "--driver", worker, "--validation", "3"}, exitUsage, "unknown flag: --validation"},
		{[]string{withSteps, "--driver", worker, "--max-error", "-1"}, exitUsage, "max-error: found -1"},
		{[]string{withSteps, "--driver", worker, "--max-error", "nan"}, exitUsage, "max-error: found NaN"},
		{[]string{withSteps, "--driver", worker, "--rules", "x"}, exitUsage, `rules: found "x"`},
		{[]string{withSteps, "--driver", worker, "--requests", bad}, exitFailure, "bad.csv:2: input_tokens: found \"0\""},
		{[]string{withSteps, "--driver", worker, "--requests", long}, exitFailure, "request a: found 200007 tokens"},
	} {
		args := append([]string{"serve-check", "--out", t.TempDir()}, c.args...)
		if status, _, stderr := runProfile(t, args...); status != c.status || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: status %d, %q, expected %d and %q", c.args, status, stderr, c.status, c.want)
		}
	}
}
