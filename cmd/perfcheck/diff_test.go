package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundlediff"
	"github.com/layerprof/layerprof/internal/bundletest"
)

func TestDiff(t *testing.T) {
	a := cleanBundle(t)
	b := filepath.Join(t.TempDir(), "b")
	files := bundletest.Files()
	files["tp1/dense.csv"].Data = regexp.MustCompile(`(?m)^(qkv_proj,\d+),(.*?)\r$`).ReplaceAll(files["tp1/dense.csv"].Data, []byte("$1,1$2\r"))
	if err := bundletest.Write(b, files); err != nil {
		t.Fatal(err)
	}
	packed := filepath.Join(t.TempDir(), "a.tar.zst")
	if status, _, stderr := call(t, "", "pack", a, "-o", packed); status != exitOK {
		t.Fatal(stderr)
	}
	status, stdout, stderr := call(t, "", "diff", packed, b, "--max-change", "5%", "--json")
	if status != exitProblems {
		t.Fatalf("status %d, want %d: %s%s", status, exitProblems, stdout, stderr)
	}
	var got bundlediff.Result
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	for _, g := range got.Groups {
		if g.Exceeds != (g.TP == 1 && g.Layer == "qkv_proj" && g.Ratio > 1.05) {
			t.Errorf("%+v", g)
		}
	}
	if got.Exceeded == 0 || len(got.Largest) != 4 || got.Largest[0].Layer != "qkv_proj" || got.A != packed {
		t.Errorf("got %+v", got)
	}
	status, stdout, _ = call(t, "", "diff", a, b)
	if status != exitOK || !strings.Contains(stdout, "qkv_proj") || strings.Contains(stdout, "\x1b") {
		t.Errorf("without --max-change: status %d, %s", status, stdout)
	}
	if status, stdout, _ = call(t, "", "diff", a, a, "--max-change", "0.001", "--largest", "0"); status != exitOK || strings.Contains(stdout, "largest") {
		t.Errorf("against itself: status %d, %s", status, stdout)
	}
}

func TestDiffRefuses(t *testing.T) {
	dir := cleanBundle(t)
	for _, args := range [][]string{
		{"diff", dir}, {"diff", dir, dir, "--max-change", "5"}, {"diff", dir, dir, "--max-change", "x%"}, {"diff", dir, dir, "--floor", "-1%"},
		{"diff", dir, dir, "--largest", "-1"}, {"diff", dir, dir, "--max-change", "NaN"},
	} {
		if status, _, stderr := call(t, "", args...); status != exitUsage {
			t.Errorf("%v: status %d, %s", args, status, stderr)
		}
	}
	files := bundletest.Files()
	files["tp1/dense.csv"].Data = bytes.Replace(files["tp1/dense.csv"].Data, []byte(",1,"), []byte(",-1,"), 1)
	broken := filepath.Join(t.TempDir(), "broken")
	if err := bundletest.Write(broken, files); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := call(t, "", "diff", dir, broken); status != exitFailed || !strings.Contains(stderr, "dense.csv:2:11: tokens") {
		t.Errorf("a broken bundle: status %d, %s", status, stderr)
	}
}

// A name in a file does not steer the terminal.
func TestDiffHostileName(t *testing.T) {
	files := bundletest.Files()
	files["meta.yaml"].Data = append([]byte("gpu: \"a\\e[2J</script>\\u202eb\"\n"), files["meta.yaml"].Data...)
	dir := filepath.Join(t.TempDir(), "b")
	if err := bundletest.Write(dir, files); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := call(t, "", "diff", cleanBundle(t), dir)
	if status != exitOK || !strings.Contains(stdout, `a\u001b[2J</script>\u202eb`) || strings.ContainsAny(stdout+stderr, "\x1b\u202e") {
		t.Errorf("status %d, %q%q", status, stdout, stderr)
	}
}
