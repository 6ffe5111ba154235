package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPlot(t *testing.T) {
	dir, work := cleanBundle(t), t.TempDir()
	for _, lookup := range [][]string{{"dense", "qkv_proj"}, {"per_sequence", "lm_head"}, {"attention", "0", "0"}, {"moe"}, {"step", "eager_sync"}} {
		args := append([]string{"plot", "--bundle", dir}, lookup...)
		if status, stdout, stderr := call(t, "", args...); status != exitOK || strings.Count(stdout, "\n") < 5 || strings.Contains(stdout, "\x1b") {
			t.Errorf("%v: status %d, %s%s", lookup, status, stdout, stderr)
		}
		file := filepath.Join(work, lookup[0]+".png")
		status, stdout, stderr := call(t, "", append(args, "-o", file)...)
		if data, err := os.ReadFile(file); status != exitOK || stdout != "" || err != nil || !strings.HasPrefix(string(data), "\x89PNG") {
			t.Errorf("%v: status %d, %s, %v", lookup, status, stderr, err)
		}
	}
	for _, test := range []struct {
		args string
		want int
	}{
		{"plot dense qkv_proj", exitUsage}, {"plot --bundle B", exitUsage}, {"plot --bundle B sparse", exitUsage}, {"plot --bundle B dense", exitUsage},
		{"plot --bundle B attention 1 x", exitUsage}, {"plot --bundle B dense absent", exitFailed}, {"plot --bundle B --tp 4 moe", exitFailed},
		{"plot --bundle B --tp 0 moe", exitFailed}, {"plot --bundle B step graph_sync", exitFailed}, {"plot --bundle B step", exitUsage},
	} {
		if status, _, stderr := call(t, "", strings.Fields(strings.Replace(test.args, "B", dir, 1))...); status != test.want {
			t.Errorf("%s: status %d, want %d: %s", test.args, status, test.want, stderr)
		}
	}
}

// Without --tp the lowest degree of a bundle is drawn, which need not be 1.
func TestPlotLowestDegree(t *testing.T) {
	dir := cleanBundle(t)
	if err := os.RemoveAll(filepath.Join(dir, "tp1")); err != nil {
		t.Fatal(err)
	}
	if status, stdout, stderr := call(t, "", "plot", "--bundle", dir, "dense", "qkv_proj"); status != exitOK || !strings.Contains(stdout, "tp2: qkv_proj") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	if status, _, stderr := call(t, "", "plot", "--bundle", dir, "--tp", "1", "dense", "qkv_proj"); status != exitFailed || !strings.Contains(stderr, "found no tp1, expected one of: tp2") {
		t.Errorf("status %d, %s", status, stderr)
	}
}
