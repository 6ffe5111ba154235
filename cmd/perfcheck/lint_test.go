package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/internal/lint"
)

func TestLint(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "SYNTHETIC", "example", "Toy-MoE", "bf16")
	if err := bundletest.Write(dir, bundletest.Files()); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := call(t, "", "lint", root)
	if status != exitOK || stdout != "" || stderr != "1 bundles, 0 findings\n" {
		t.Errorf("the clean bundle: status %d, %q, %q", status, stdout, stderr)
	}
	files := bundletest.Files()
	files["meta.yaml"].Data = []byte(strings.Replace(string(files["meta.yaml"].Data), "origin: synthetic", "origin: measured", 1))
	files["tp2/dense.csv"].Data = []byte(strings.Replace(string(files["tp2/dense.csv"].Data), "layernorm,2,", "layernorm,2,1", 1))
	if err := bundletest.Write(filepath.Join(root, "SYNTHETIC", "example", "Toy-MoE", "fp8"), files); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr = call(t, "", "lint", "--json", root)
	rules := map[string]lintLine{}
	for _, line := range strings.Split(strings.TrimSpace(stdout), "\n") {
		var f lintLine
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		rules[f.Rule] = f
	}
	if status != exitProblems || len(rules) != 3 || !strings.Contains(stderr, "2 bundles, 3 findings") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	if f := rules["tp-copies"]; f.Severity != lint.Warning || !strings.HasSuffix(f.Places[0].File, "fp8/tp2/dense.csv") || f.Places[0].Line == 0 {
		t.Errorf("%+v", f)
	}
	if f := rules["synthetic"]; f.Bundle != dir {
		t.Errorf("%+v", f)
	}
	if _, ok := rules["meta-folder"]; !ok {
		t.Errorf("the folder's name was not found: %s", stdout)
	}
	if status, text, _ := call(t, "", "lint", root); status != exitProblems || strings.Count(text, "warning: ")+strings.Count(text, "error: ") != 3 {
		t.Errorf("text: status %d, %s", status, text)
	}
	if status, text, _ := call(t, "", "lint", "--rules"); status != exitOK || strings.Count(text, "\n") != len(lint.Rules())+1 {
		t.Errorf("--rules: status %d, %s", status, text)
	}
	if status, _, _ := call(t, "", "lint"); status != exitUsage {
		t.Errorf("no path: status %d", status)
	}
}
