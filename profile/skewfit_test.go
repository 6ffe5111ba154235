package profile

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
)

// copyBundle copies a reference bundle into a folder of the test's own.
func copyBundle(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(referenceDir(t, name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// contents are a folder's files.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, path))
		files[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A refit writes the reference's bytes again, whatever stood there before.
func TestFitBundleRestoresTheReferences(t *testing.T) {
	for _, name := range []string{llamaBundle, qwenBundle} {
		dir := copyBundle(t, name)
		want := contents(t, dir)
		for _, tp := range []string{"tp1", "tp2"} {
			if err := os.WriteFile(filepath.Join(dir, tp, perfio.SkewFitFile), []byte("pc,n_label\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		before, after, _ := strings.Cut(want[perfio.MetaFile], "alpha_default: 0.0")
		broken := before + "alpha_default: 9.9" + after
		if err := os.WriteFile(filepath.Join(dir, perfio.MetaFile), []byte(broken), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := FitBundle(dir); err != nil {
			t.Fatal(err)
		}
		got := contents(t, dir)
		for file := range want {
			if got[file] != want[file] {
				t.Errorf("%s/%s differs from the reference:\n%.1000s", name, file, cmp.Diff(want[file], got[file]))
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d files, expected %d", name, len(got), len(want))
		}
	}
}

// One changed row changes its bucket and the summary, and nothing else.
func TestFitBundleFollowsItsRows(t *testing.T) {
	dir := copyBundle(t, llamaBundle)
	before := contents(t, dir)
	path := filepath.Join(dir, "tp1", perfio.SkewFile)
	lines := strings.SplitAfter(before["tp1/"+perfio.SkewFile], "\n")
	fields := strings.Split(strings.TrimSpace(lines[5000]), ",")
	fields[12] = fields[11] // t_skew as slow as t_max
	lines[5000] = strings.Join(fields, ",") + "\n"
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := FitBundle(dir); err != nil {
		t.Fatal(err)
	}
	after := contents(t, dir)
	changed := 0
	old, now := strings.Split(before["tp1/"+perfio.SkewFitFile], "\n"), strings.Split(after["tp1/"+perfio.SkewFitFile], "\n")
	for i := range old {
		if old[i] != now[i] {
			changed++
		}
	}
	if len(old) != len(now) || changed != 1 {
		t.Errorf("%d buckets changed, expected 1", changed)
	}
	if before["tp2/"+perfio.SkewFitFile] != after["tp2/"+perfio.SkewFitFile] {
		t.Error("the other degree's table changed")
	}
}

// The H200 bundle has 1,200 cases and no fit.
func TestFitBundleWithoutFit(t *testing.T) {
	dir := copyBundle(t, h200Bundle)
	if _, err := FitBundle(dir); err != nil {
		t.Fatal(err)
	}
	b, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	fit := b.Meta.SkewFit()
	if !fit.Enabled || fit.Entry(1) == nil || fit.Entry(1).BucketTable != "tp1/skew_fit.csv" || len(b.TPs[0].SkewFit) == 0 {
		t.Errorf("fit %+v with %d buckets", fit, len(b.TPs[0].SkewFit))
	}
	if _, err := FitBundle(filepath.Join(dir, "tp1")); err == nil {
		t.Error("no error for a folder that is no bundle")
	}
	if err := os.Remove(filepath.Join(dir, "tp1", perfio.SkewFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := FitBundle(dir); err == nil || !strings.Contains(err.Error(), "no tp folder has a skew.csv") {
		t.Errorf("without skew.csv: %v", err)
	}
}
