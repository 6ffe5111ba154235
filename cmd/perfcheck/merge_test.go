package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
)

func TestMerge(t *testing.T) {
	whole, work := cleanBundle(t), t.TempDir()
	a, b, out := filepath.Join(work, "a"), filepath.Join(work, "b"), filepath.Join(work, "out")
	files := bundletest.Files()
	for name, file := range files {
		dir := a
		if strings.HasSuffix(name, "attention.csv") || name == "meta.yaml" {
			dir = b
		}
		for _, dir := range map[bool][]string{true: {a, b}, false: {dir}}[name == "meta.yaml"] {
			path := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, file.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if status, stdout, stderr := call(t, "", "merge", a, b, "-o", out); status != exitOK || stdout != "" {
		t.Fatalf("status %d, %s%s", status, stdout, stderr)
	}
	if err := os.WriteFile(filepath.Join(b, "tp1", "validation.jsonl"), []byte("{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := call(t, "", "merge", a, b, "-o", filepath.Join(work, "again")); status != exitOK || stderr != "perfcheck: left behind: "+b+"/tp1/validation.jsonl\n" {
		t.Errorf("what stays behind: status %d, %s", status, stderr)
	}
	if status, stdout, _ := call(t, "", "diff", whole, out, "--max-change", "0.001"); status != exitOK || strings.Contains(stdout, "only in") {
		t.Errorf("the merged bundle differs: %s", stdout)
	}
	if status, stdout, _ := call(t, "", "validate", out); status != exitOK {
		t.Errorf("validate: %s", stdout)
	}
	if status, _, stderr := call(t, "", "merge", a, b, "-o", out); status != exitFailed || !strings.Contains(stderr, "expected nothing") {
		t.Errorf("into a folder that is there: status %d, %s", status, stderr)
	}
	files["tp1/dense.csv"].Data = []byte(strings.Replace(string(files["tp1/dense.csv"].Data), "qkv_proj,16,", "qkv_proj,16,1", 1))
	other, second := filepath.Join(work, "other"), filepath.Join(work, "second")
	if err := bundletest.Write(other, files); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := call(t, "", "merge", whole, other, "-o", second)
	if _, err := os.Stat(second); status != exitProblems || !strings.Contains(stdout, "other/tp1/dense.csv:24: qkv_proj: tokens 16: found ") || err == nil {
		t.Errorf("a conflict: status %d, %s%s", status, stdout, stderr)
	}
	if status, _, stderr := call(t, "", "merge", whole, other, "-o", second, "--keep-first"); status != exitOK {
		t.Errorf("--keep-first: status %d, %s", status, stderr)
	}
	if status, _, stderr := call(t, "", "merge", filepath.Join(work, "absent")); status != exitFailed || !strings.Contains(stderr, "absent: no such file") {
		t.Errorf("a folder that is absent: status %d, %s", status, stderr)
	}
	for _, args := range [][]string{{"merge", a, "-o", out}, {"merge", a, b}} {
		if status, _, _ := call(t, "", args...); status != exitUsage {
			t.Errorf("%v: status %d", args, status)
		}
	}
}
