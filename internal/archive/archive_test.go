package archive_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/layerprof/layerprof/internal/archive"
)

var folder = fstest.MapFS{
	"meta.yaml":               {Data: []byte("model: m\n")},
	"tp1/dense.csv":           {Data: []byte("layer,tokens,time_us\r\n")},
	".journal/shots.jsonl":    {Data: []byte("{}")},
	"tp1/link-to-the-outside": {Data: []byte("/etc/passwd"), Mode: fs.ModeSymlink},
}

func pack(t testing.TB, fsys fs.FS) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := archive.Pack(&b, fsys); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	var b bytes.Buffer
	skipped, err := archive.Pack(&b, folder)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{".journal", "tp1/link-to-the-outside"}, skipped); diff != "" {
		t.Errorf("skipped (-want +got):\n%s", diff)
	}
	if !bytes.Equal(b.Bytes(), pack(t, folder)) {
		t.Error("packing twice gave different bytes")
	}
	got, err := archive.Open(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"meta.yaml", "tp1/dense.csv"} {
		data, err := fs.ReadFile(got, name)
		if err != nil || string(data) != string(folder[name].Data) {
			t.Errorf("%s: got %q, %v", name, data, err)
		}
	}
	if _, err := fs.Stat(got, ".journal/shots.jsonl"); err == nil {
		t.Error("the hidden folder was packed")
	}
	// Zeros fill up the records of other tar programs.
	padded := craft(t, entry{archive.ManifestName, line("a", "one"), tar.TypeReg}, entry{"a", "one", tar.TypeReg})
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Open(bytes.NewReader(append(padded, z.EncodeAll(make([]byte, 8192), nil)...))); err != nil {
		t.Errorf("padded with zeros: %v", err)
	}
	if again := pack(t, got); !bytes.Equal(again, b.Bytes()) {
		t.Error("packing what was unpacked gave different bytes")
	}
}

type entry struct {
	name string
	data string
	kind byte
}

// craft writes an archive entry by entry, as an attacker would.
func craft(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Size: int64(len(e.data)), Mode: 0o644}
		if e.kind == tar.TypeSymlink {
			h.Linkname, h.Size = e.data, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(e.data)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func line(name, data string) string {
	return fmt.Sprintf("%x %d %s\n", sha256.Sum256([]byte(data)), len(data), name)
}

func TestOpenRefuses(t *testing.T) {
	const manifest = archive.ManifestName
	good := pack(t, folder)
	altered := craft(t, entry{manifest, line("a", "one"), tar.TypeReg}, entry{"a", "two", tar.TypeReg})
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "unexpected EOF"},
		{"no archive", []byte("hello, world, this is text"), "found no packed bundle, expected"},
		{"cut", good[:len(good)/2], "the file is cut off"},
		{"altered file", altered, `"a": found other contents`},
		{"no manifest", craft(t, entry{"a", "one", tar.TypeReg}), `found "a" first`},
		{"leaves the folder", craft(t, entry{manifest, line("../a", "one"), tar.TypeReg}, entry{"../a", "one", tar.TypeReg}), "expected a path inside the folder"},
		{"absolute", craft(t, entry{manifest, line("/a", "one"), tar.TypeReg}), "expected a path inside the folder"},
		{"link", craft(t, entry{manifest, line("a", ""), tar.TypeReg}, entry{"a", "/etc/passwd", tar.TypeSymlink}), "no regular file"},
		{"unnamed file", craft(t, entry{manifest, line("a", "one"), tar.TypeReg}, entry{"a", "one", tar.TypeReg}, entry{"b", "one", tar.TypeReg}), "does not name"},
		{"missing file", craft(t, entry{manifest, line("a", "one") + line("b", "one"), tar.TypeReg}, entry{"a", "one", tar.TypeReg}), `"b": missing`},
		{"twice", craft(t, entry{manifest, line("a", "one"), tar.TypeReg}, entry{"a", "one", tar.TypeReg}, entry{"a", "one", tar.TypeReg}), "twice"},
		{"junk after it", append(slices.Clone(good), "junk"...), "after the archive's end"},
		{"a byte after it", append(slices.Clone(good), 'x'), "after the last file"},
		{"another after it", append(slices.Clone(good), good...), "after the archive's end"},
		{"without its checksum", good[:len(good)-4], "the file is cut off"},
		{"a cut checksum", good[:len(good)-1], "the file is cut off"},
		{"another checksum", append(slices.Clone(good[:len(good)-1]), good[len(good)-1]^1), "CRC check failed"},
		{"bad manifest", craft(t, entry{manifest, "what is this", tar.TypeReg}), "size: found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := archive.Open(bytes.NewReader(test.data))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(pack(f, folder))
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	f.Fuzz(func(t *testing.T, data []byte) {
		fsys, err := archive.Open(bytes.NewReader(data))
		if err == nil {
			pack(t, fsys)
		}
	})
}
