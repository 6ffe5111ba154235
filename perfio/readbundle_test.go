package perfio_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
)

func set(files fstest.MapFS, name, text string) {
	files[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
}

// What SCHEMA.md says that a reader tolerates.
func TestTolerated(t *testing.T) {
	files := bundletest.Files()
	set(files, "tp1/dense.csv", "note,time_us,layer,tokens,more\nx,2.5,norm,16,\n\n\"a, \"\"b\"\"\",1e2,\"norm\",32,y\r\n")
	delete(files, "tp1/skew.csv")
	delete(files, "tp1/moe.csv")
	set(files, "notes.txt", "stray")
	set(files, "tp01/dense.csv", "not a degree")
	set(files, "tp1-old/dense.csv", "a sibling")
	set(files, "tp4", "a file")
	meta := string(files["meta.yaml"].Data)
	meta = strings.Replace(meta, "    2:\n", "    \"2\":\n", 1) + "unknown: {deep: [1, {x: y}]}\n"
	set(files, "meta.yaml", meta)
	b, err := perfio.ReadBundle(files, ".")
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Warnings) > 0 {
		t.Errorf("warnings: %v", b.Warnings)
	}
	want := []perfio.DenseRow{{Layer: "norm", Tokens: 16, TimeUS: 2.5}, {Layer: "norm", Tokens: 32, TimeUS: 100}}
	if got := b.TPs[0].Dense; len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("dense rows %v, want %v", got, want)
	}
	if b.TPs[0].Skew != nil || b.TPs[0].MoE != nil || len(b.TPs) != 2 {
		t.Errorf("absent files or strays were read: %d degrees", len(b.TPs))
	}
	fit := b.Meta.SkewFit()
	if !fit.Enabled || fit.Entry(1) == nil || fit.Entry(2) == nil || fit.Entry(2).AlphaDefault != 0.125 {
		t.Errorf("skew fit %+v", fit)
	}
	if a := fit.AxesFor(2); len(a.NBins) != 4 || len(a.KPBins) != 4 || a.NLabels[2] != "n>4" {
		t.Errorf("axes %+v", a)
	}
	if fit.AxesFor(8) != fit.Axes {
		t.Error("a degree without an entry does not have the block's axes")
	}
}

func TestWarnings(t *testing.T) {
	files := bundletest.Files()
	delete(files, "tp1/skew_fit.csv")
	delete(files, "tp2/attention.csv")
	set(files, "meta.yaml", strings.Replace(string(files["meta.yaml"].Data), "[1, 2]", "[1, 2, 4]", 1))
	b, err := perfio.ReadBundle(files, ".")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"meta.yaml:6:13: tp_degrees: found degree 4, expected only degrees with a folder (there is no tp4)",
		`meta.yaml:22:21: skew_fit.per_tp.1.bucket_table: found "tp1/skew_fit.csv", which is missing, expected a table (without it only alpha_default is used)`,
		"tp2/attention.csv: found no such file, expected one (its lookups will find nothing)",
	}
	if len(b.Warnings) != len(want) {
		t.Fatalf("warnings %v", b.Warnings)
	}
	for i, w := range b.Warnings {
		if w.Error() != want[i] || !w.Warning {
			t.Errorf("warning %d: %v\nwant %s", i, w, want[i])
		}
	}
}

func TestLenientTakesTheFirst(t *testing.T) {
	files := bundletest.Files()
	set(files, "tp1/dense.csv", "layer,tokens,time_us\nb,1,3\na,1,1\nb,1,4\na,1,2\n")
	if _, err := perfio.ReadBundle(files, "."); err == nil {
		t.Fatal("duplicate keys are no error")
	}
	b, err := perfio.ReadBundle(files, ".", perfio.Lenient())
	if err != nil {
		t.Fatal(err)
	}
	got := b.TPs[0].Dense
	if len(got) != 2 || got[0] != (perfio.DenseRow{Layer: "b", Tokens: 1, TimeUS: 3}) || got[1] != (perfio.DenseRow{Layer: "a", Tokens: 1, TimeUS: 1}) {
		t.Errorf("rows %v, want the first of each key", got)
	}
	if len(b.Warnings) != 2 || b.Warnings[0].Error() != "tp1/dense.csv:4:1: layer,tokens: found a second row of key (b, 1), expected only the one on line 2" {
		t.Errorf("warnings %v", b.Warnings)
	}
	// skew.csv may repeat its keys, and keeps its rows.
	files = bundletest.Files()
	text := string(files["tp1/skew.csv"].Data)
	lines := strings.SplitAfter(text, "\n")
	set(files, "tp1/skew.csv", text+lines[1])
	b, err = perfio.ReadBundle(files, ".")
	if err != nil || len(b.TPs[0].Skew) != len(lines)-1 {
		t.Errorf("skew.csv with a repeated case: %v", err)
	}
}

func TestRawKeys(t *testing.T) {
	files := bundletest.Files()
	const header = "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples,raw_key\n"
	set(files, "tp1/skew_fit.csv", header+"0,a,b,c,d,0.5,1,same\n0,e,b,c,d,0.5,1,same\n")
	_, err := perfio.ReadBundle(files, ".")
	if want := "tp1/skew_fit.csv:3:1: raw_key: found a second row of key same, expected only the one on line 2"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	set(files, "tp1/skew_fit.csv", header+"0,a,b,c,d,0.5,1,\n0,a,b,c,d,0.5,1,other\n")
	b, err := perfio.ReadBundle(files, ".")
	if err != nil {
		t.Fatal(err)
	}
	if k := b.TPs[0].SkewFit[0].Key() + " " + b.TPs[0].SkewFit[1].Key(); k != "pc=0|a|b|c|d other" {
		t.Errorf("keys %s", k)
	}
}

func TestOnlyAndWithout(t *testing.T) {
	files := bundletest.Files()
	set(files, "tp1/skew.csv", "broken")
	b, err := perfio.ReadBundle(files, ".", perfio.Without(perfio.SkewFile))
	if err != nil || b.TPs[0].Skew != nil || b.TPs[0].Attention == nil {
		t.Errorf("Without(skew.csv): %v", err)
	}
	b, err = perfio.ReadBundle(files, ".", perfio.Only(perfio.AttentionFile))
	if err != nil || b.TPs[0].Dense != nil || b.TPs[0].Attention == nil {
		t.Errorf("Only(attention.csv): %v", err)
	}
}

func TestProblemsAreCapped(t *testing.T) {
	files := bundletest.Files()
	set(files, "tp1/dense.csv", "layer,tokens,time_us\n"+strings.Repeat("x,-1,1\n", 500))
	_, err := perfio.ReadBundle(files, ".")
	var all *perfio.ProblemsError
	if !errors.As(err, &all) || len(all.Problems) != 100 || all.More != 400 || !strings.HasSuffix(err.Error(), "\nand 400 more problems") {
		t.Errorf("got %d bytes of %T", len(fmt.Sprint(err)), err)
	}
	_, err = perfio.ReadBundle(files, ".", perfio.MaxProblems(3))
	if !errors.As(err, &all) || len(all.Problems) != 3 || all.More != 497 {
		t.Errorf("MaxProblems(3): %v", err)
	}
	seen := 0
	perfio.Validate(files, ".", func(*perfio.ParseError) bool { seen++; return seen < 7 })
	if seen != 7 {
		t.Errorf("Validate went on to %d problems after it was told to stop at 7", seen)
	}
}

// hugeFS says of one file that it is huge, and gives as much as is asked for.
type hugeFS struct {
	fstest.MapFS
	name string
	size int64 // as Stat says
	read *int64
}

func (f hugeFS) Open(name string) (fs.File, error) {
	if name == f.name {
		return &hugeFile{size: f.size, read: f.read}, nil
	}
	return f.MapFS.Open(name)
}

func (f hugeFS) Stat(name string) (fs.FileInfo, error) {
	if name == f.name {
		return (&hugeFile{size: f.size}).Stat()
	}
	return f.MapFS.Stat(name)
}

type hugeFile struct {
	size   int64
	read   *int64
	header bool
}

func (f *hugeFile) Stat() (fs.FileInfo, error) { return hugeInfo{f.size}, nil }
func (f *hugeFile) Close() error               { return nil }
func (f *hugeFile) Read(b []byte) (int, error) {
	text := "x,1,1\n"
	if !f.header {
		text, f.header = "layer,tokens,time_us\n", true
	}
	n := copy(b, strings.Repeat(text, max(1, min(len(b)/len(text), 1000))))
	if text[0] == 'l' {
		n = len(text)
	}
	*f.read += int64(n)
	return n, nil
}

type hugeInfo struct{ size int64 }

func (i hugeInfo) Name() string       { return "huge" }
func (i hugeInfo) Size() int64        { return i.size }
func (i hugeInfo) Mode() fs.FileMode  { return 0o644 }
func (i hugeInfo) ModTime() time.Time { return time.Time{} }
func (i hugeInfo) IsDir() bool        { return false }
func (i hugeInfo) Sys() any           { return nil }

func TestHugeFile(t *testing.T) {
	var read int64
	_, err := perfio.ReadBundle(hugeFS{bundletest.Files(), "tp1/dense.csv", 10 << 30, &read}, ".")
	if want := "tp1/dense.csv: found a file of 10737418240 bytes, expected at most 67108864"; err == nil || err.Error() != want || read != 0 {
		t.Errorf("got %v after %d bytes\nwant %s", err, read, want)
	}
	// One that says it is small and goes on for ever.
	_, err = perfio.ReadBundle(hugeFS{bundletest.Files(), "tp1/dense.csv", 100, &read}, ".", perfio.MaxProblems(1))
	if want := "tp1/dense.csv:1048578: found more than 1048576 rows, expected fewer"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %.200v\nwant %s", err, want)
	}
	if read > perfio.MaxTableBytes {
		t.Errorf("%d bytes read", read)
	}
}

// endless gives one line for ever.
type endless struct{ read int }

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	e.read += len(b)
	return len(b), nil
}

func TestEndlessLine(t *testing.T) {
	e := &endless{}
	r := perfio.NewDenseReader(e, "dense.csv")
	if r.Scan() || r.Err() == nil || e.read > 1<<20 {
		t.Errorf("Scan took %d bytes: %v", e.read, r.Err())
	}
	e = &endless{}
	br := perfio.NewBatchReader(e, "batches.jsonl")
	if br.Scan() || br.Err() == nil || e.read > 2<<20 {
		t.Errorf("batches: Scan took %d bytes: %v", e.read, br.Err())
	}
	if _, err := perfio.ParseMeta(&endless{}, "meta.yaml"); err == nil {
		t.Error("ParseMeta of an endless file is no error")
	}
}

func TestSymbolicLinks(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	if err := bundletest.Write(outside, bundletest.Files()); err != nil {
		t.Fatal(err)
	}
	if err := bundletest.Write(dir, bundletest.Files()); err != nil {
		t.Fatal(err)
	}
	link := func(to, from string) {
		t.Helper()
		if err := os.RemoveAll(from); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, from); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
	}
	// Inside the bundle: followed.
	link("../tp1/attention.csv", filepath.Join(dir, "tp2", "attention.csv"))
	if _, err := perfio.OpenBundle(dir); err != nil {
		t.Errorf("a link inside the bundle: %v", err)
	}
	for _, name := range []string{"tp2/attention.csv", "tp2", "meta.yaml"} {
		t.Run(name, func(t *testing.T) {
			link(filepath.Join(outside, name), filepath.Join(dir, name))
			_, err := perfio.OpenBundle(dir)
			want := filepath.Join(dir, name) + ": path escapes from parent"
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
			os.Remove(filepath.Join(dir, name))
			if err := bundletest.Write(dir, bundletest.Files()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestOpenBundleNowhere(t *testing.T) {
	_, err := perfio.OpenBundle(filepath.Join(t.TempDir(), "none"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestScanProtocol(t *testing.T) {
	r := perfio.NewDenseReader(strings.NewReader("layer,tokens,time_us\na,1,2\nb,x,y\n"), "f.csv")
	if _, err := r.Record(); !errors.Is(err, perfio.ErrNoRow) {
		t.Errorf("Record before Scan: %v", err)
	}
	if !r.Scan() || r.Line() != 2 {
		t.Fatal("no first row")
	}
	if row, err := r.Record(); err != nil || row.Layer != "a" {
		t.Errorf("first row %v, %v", row, err)
	}
	if !r.Scan() {
		t.Fatal("a bad row ends the scan")
	}
	var all *perfio.ProblemsError
	if _, err := r.Record(); !errors.As(err, &all) || len(all.Problems) != 2 {
		t.Errorf("bad row: %v", err)
	}
	for range 2 {
		if r.Scan() || r.Err() != nil {
			t.Errorf("after the end: %v", r.Err())
		}
		if _, err := r.Record(); !errors.Is(err, perfio.ErrNoRow) {
			t.Errorf("Record after the last Scan: %v", err)
		}
	}
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

func TestReadErrors(t *testing.T) {
	failure := errors.New("input/output error")
	in := io.MultiReader(strings.NewReader("layer,tokens,time_us\na,1,2\n"), brokenReader{failure})
	r := perfio.NewDenseReader(in, "f.csv")
	if !r.Scan() || r.Scan() || !errors.Is(r.Err(), failure) {
		t.Errorf("Err() = %v, want the reader's", r.Err())
	}
	r = perfio.NewDenseReader(brokenReader{nil}, "f.csv")
	if r.Scan() || !errors.Is(r.Err(), io.ErrNoProgress) {
		t.Errorf("a reader that gives nothing: %v", r.Err())
	}
}

// A bundle inside an archive needs nothing but fs.FS.
func TestReadFromArchive(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, file := range bundletest.Files() {
		w, err := z.Create("root/toy/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(file.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := perfio.ReadBundle(r, "root/toy")
	if err != nil || len(bundle.TPs) != 2 || len(bundle.TPs[0].Attention) == 0 {
		t.Errorf("%v", err)
	}
}

func TestReadBundleNowhere(t *testing.T) {
	_, err := perfio.ReadBundle(bundletest.Files(), "none")
	want := "none/meta.yaml: file does not exist\nnone: file does not exist"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}
