package atomicfile

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.csv")
	for _, text := range []string{"old", "a longer new one"} {
		if err := Write(path, func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
			t.Fatal(err)
		}
		wantOnly(t, path, text)
	}
}

// What cannot be written is said of the path that was asked for.
func TestWriteSaysWhere(t *testing.T) {
	dir := t.TempDir()
	nothing := func(io.Writer) error { return nil }
	for path, want := range map[string]string{
		dir:                             "write " + dir + ": found a folder, expected a file or nothing",
		filepath.Join(dir, "none", "x"): "folder " + filepath.Join(dir, "none") + ": ",
	} {
		if err := Write(path, nothing); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), ".tmp") {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// failingFile fails in one of its methods.
type failingFile struct {
	file
	step string
	err  error
}

func (f failingFile) Write(b []byte) (int, error) {
	if f.step == "write" { // a full disk takes a part
		n, _ := f.file.Write(b[:len(b)/2])
		return n, f.err
	}
	return f.file.Write(b)
}

func (f failingFile) Sync() error {
	if f.step == "sync" {
		return f.err
	}
	return f.file.Sync()
}

func (f failingFile) Close() error {
	err := f.file.Close()
	if f.step == "close" {
		return f.err
	}
	return err
}

func TestWriteFailsWhole(t *testing.T) {
	failure := errors.New("no space left on device")
	for _, step := range []string{"create", "write", "sync", "close", "rename", "callback"} {
		t.Run(step, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.csv")
			if err := os.WriteFile(path, []byte("old"), 0o666); err != nil {
				t.Fatal(err)
			}
			o := system
			o.create = func(path string) (file, error) {
				if step == "create" {
					return nil, failure
				}
				f, err := create(path)
				return failingFile{f, step, failure}, err
			}
			if step == "rename" {
				o.rename = func(string, string) error { return failure }
			}
			err := o.write(path, func(w io.Writer) error {
				if _, err := io.WriteString(w, "something new"); err != nil {
					return err
				}
				if step == "callback" {
					return failure
				}
				return nil
			})
			if !errors.Is(err, failure) {
				t.Errorf("error %v, want the failure", err)
			}
			wantOnly(t, path, "old")
		})
	}
}

func TestFolderSyncErrorIsTold(t *testing.T) {
	failure := errors.New("input/output error")
	path := filepath.Join(t.TempDir(), "x.csv")
	o := system
	o.syncDir = func(string) error { return failure }
	if err := o.write(path, func(w io.Writer) error { return nil }); !errors.Is(err, failure) {
		t.Errorf("error %v, want the failure", err)
	}
}

// wantOnly checks the file's text and that nothing stands beside it.
func wantOnly(t *testing.T, path, text string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != text {
		t.Errorf("file holds %q, %v; want %q", got, err, text)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("folder holds %v, %v; want the file alone", entries, err)
	}
}

// The process's own output by its name is not replaced: it may be a file that
// others write to as well.
func TestWriteToStandardOutput(t *testing.T) {
	if os.Getenv("ATOMICFILE_WRITES") != "" {
		if err := Write("/dev/stdout", func(w io.Writer) error { _, err := io.WriteString(w, "page\n"); return err }); err != nil {
			t.Fatal(err)
		}
		os.Exit(0)
	}
	if _, err := os.Stat("/dev/stdout"); err != nil {
		t.Skip("there is no /dev/stdout:", err)
	}
	path := filepath.Join(t.TempDir(), "log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestWriteToStandardOutput$")
	cmd.Env, cmd.Stdout = append(os.Environ(), "ATOMICFILE_WRITES=1"), log
	if _, err := log.WriteString("before\n"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := log.WriteString("after\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "before\npage\nafter\n" {
		t.Errorf("%q, %v", got, err)
	}
}
