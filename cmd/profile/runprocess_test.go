package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// asProfile is the environment variable under which this test binary is the
// program itself, for tests that signal, kill or watch a process.
const asProfile = "LAYERPROF_TEST_AS_PROFILE"

func TestMain(m *testing.M) {
	if os.Getenv(asProfile) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// profileProcess is the program in a process of its own, not started.
func profileProcess(args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProfile+"=1")
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// smallSweep are flags of a sweep of a few hundred shots.
func smallSweep(more ...string) []string {
	return append([]string{
		"--model", "meta-llama/Llama-3.1-8B", "--hardware", "H100",
		"--max-num-batched-tokens", "64", "--max-num-seqs", "8", "--attention-max-kv", "512",
	}, more...)
}

// smallBundle is a synthetic bundle that replays can answer from.
func smallBundle(t *testing.T) string {
	t.Helper()
	out := t.TempDir()
	got := runCommand(t, append([]string{"run", "--driver", "roofline", "--out", out}, smallSweep()...)...)
	if got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	return filepath.Join(out, "H100", "meta-llama", "Llama-3.1-8B", "bf16")
}

// bundleFiles reads a bundle's tables, and meta.yaml without what may differ
// between two runs: times and telemetry.
func bundleFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	names, err := filepath.Glob(filepath.Join(dir, "tp*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, filepath.Join(dir, "meta.yaml")) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		relative, _ := filepath.Rel(dir, name)
		files[relative] = string(text)
	}
	var kept []string
	block := ""
	for _, line := range strings.Split(files["meta.yaml"], "\n") {
		if key, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, " ") {
			block = key
		}
		if block != "profiled_at" && block != "telemetry" {
			kept = append(kept, line)
		}
	}
	files["meta.yaml"] = strings.Join(kept, "\n")
	return files
}

func sameFiles(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s differs: %d bytes, expected %d\n%s", name, len(got[name]), len(want[name]), firstDifference(got[name], want[name]))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, expected %d", len(got), len(want))
	}
}

func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return "got  " + a[i] + "\nwant " + b[i]
		}
	}
	return "one is the beginning of the other"
}
