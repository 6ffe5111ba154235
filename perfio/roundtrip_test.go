package perfio_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/perfio"
)

// Reading each reference file and writing it again gives the same bytes.
func TestReferenceRoundTrip(t *testing.T) {
	for _, dir := range referenceBundles {
		skipWithout(t, dir)
		b, err := perfio.OpenBundle(dir)
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "bundle")
		if err := perfio.WriteBundle(out, b); err != nil {
			t.Fatal(err)
		}
		files := 0
		err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files++
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			want, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			got, err := os.ReadFile(filepath.Join(out, name))
			if err != nil {
				return err
			}
			if name == perfio.MetaFile {
				compareYAML(t, path, got, want)
			} else if !bytes.Equal(got, want) {
				t.Errorf("%s: bytes differ: %s", path, firstDifference(got, want))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if written := countFiles(t, out); written != files {
			t.Errorf("%s: %d files written, want %d", dir, written, files)
		}
	}
}

func compareYAML(t *testing.T, path string, got, want []byte) {
	t.Helper()
	var g, w any
	if err := yaml.Unmarshal(got, &g); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(want, &w); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
	for _, line := range strings.Split(string(want), "\n") {
		if strings.Contains(line, "_bins: [") || strings.Contains(line, "tp_degrees: [") {
			if !strings.Contains(string(got), line+"\n") {
				t.Errorf("%s: the line %q is not written as it was", path, line)
			}
		}
	}
}

func firstDifference(got, want []byte) string {
	g, w := strings.SplitAfter(string(got), "\n"), strings.SplitAfter(string(want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return strings.TrimSpace(g[i]) + " in place of " + strings.TrimSpace(w[i])
		}
	}
	return "one is longer"
}

func countFiles(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var _ io.Writer = (*failingWriter)(nil)
