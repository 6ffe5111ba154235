package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
)

func TestPackUnpack(t *testing.T) {
	dir := cleanBundle(t)
	hidden := filepath.Join(dir, ".journal")
	if err := os.Mkdir(hidden, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(hidden, "shots.jsonl"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	first, second, out := filepath.Join(work, "a.tar.zst"), filepath.Join(work, "b.tar.zst"), filepath.Join(work, "deep", "out")
	status, _, stderr := call(t, "", "pack", dir, "-o", first)
	if status != exitOK || !strings.Contains(stderr, "left out: .journal\n") {
		t.Fatalf("pack: status %d, %q", status, stderr)
	}
	if status, _, stderr := call(t, "", "unpack", first, out); status != exitOK {
		t.Fatalf("unpack: status %d, %q", status, stderr)
	}
	for name, file := range bundletest.Files() {
		got, err := os.ReadFile(filepath.Join(out, filepath.FromSlash(name)))
		if err != nil || !bytes.Equal(got, file.Data) {
			t.Errorf("%s came back with %d bytes (%v), want %d", name, len(got), err, len(file.Data))
		}
	}
	if status, _, stderr := call(t, "", "pack", out, "-o", second); status != exitOK || stderr != "" {
		t.Fatalf("pack again: status %d, %q", status, stderr)
	}
	a, errA := os.ReadFile(first)
	b, errB := os.ReadFile(second)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("the same bundle packed twice differs (%v, %v)", errA, errB)
	}
	for _, verb := range []string{"validate", "inspect"} {
		if status, _, stderr := call(t, "", verb, first); status != exitOK {
			t.Errorf("%s of a packed bundle: status %d, %q", verb, status, stderr)
		}
	}
}

func TestPackRefuses(t *testing.T) {
	dir, work := cleanBundle(t), t.TempDir()
	good, cut := filepath.Join(work, "good.tar.zst"), filepath.Join(work, "cut.tar.zst")
	if status, _, stderr := call(t, "", "pack", dir, "-o", good); status != exitOK {
		t.Fatal(stderr)
	}
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cut, data[:len(data)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []string
		want int
		text string
	}{
		{"no output", []string{"pack", dir}, exitUsage, "expected the file to write"},
		{"other name", []string{"pack", dir, "-o", "x.zip"}, exitUsage, ".tar.zst"},
		{"no bundle", []string{"pack", work, "-o", filepath.Join(work, "x.tar.zst")}, exitFailed, "meta.yaml"},
		{"one argument", []string{"unpack", good}, exitUsage, "expected a packed bundle and the folder"},
		{"cut", []string{"unpack", cut, filepath.Join(work, "new")}, exitFailed, "unexpected EOF"},
		{"not empty", []string{"unpack", good, dir}, exitFailed, "expected none or an empty one"},
		{"no archive", []string{"unpack", filepath.Join(dir, "meta.yaml"), filepath.Join(work, "new")}, exitFailed, "archive"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, _, stderr := call(t, "", test.args...)
			if status != test.want || !strings.Contains(stderr, test.text) {
				t.Errorf("status %d, %q; want %d and %q", status, stderr, test.want, test.text)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(work, "new")); err == nil {
		t.Error("a refused archive left a folder")
	}
}
