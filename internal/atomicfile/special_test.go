//go:build unix

package atomicfile

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func writeText(text string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, text); return err }
}

// A pipe stays one, also at the end of links, and gets the text.
func TestWriteIntoPipe(t *testing.T) {
	dir := t.TempDir()
	pipe, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip("no pipes here:", err)
	}
	if err := os.Symlink("pipe", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, link} {
		// Both ends, so that nobody waits for the other.
		reader, err := os.OpenFile(pipe, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := Write(path, writeText("text")); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if info, err := os.Lstat(pipe); err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
			t.Fatalf("the pipe is %v, %v", info.Mode(), err)
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(reader, got); err != nil || string(got) != "text" {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
		reader.Close()
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info, err)
	}
}

// A device that takes nothing says so, and stays.
func TestWriteIntoDeviceTells(t *testing.T) {
	full := filepath.Join(t.TempDir(), "full")
	if err := syscall.Mknod(full, syscall.S_IFCHR|0o600, 1<<8|7); err != nil {
		t.Skip("no device can be made here:", err)
	}
	if f, err := os.OpenFile(full, os.O_WRONLY, 0); err != nil {
		t.Skip("the device cannot be opened here:", err)
	} else {
		f.Close()
	}
	err := Write(full, writeText("text"))
	if err == nil || !strings.Contains(err.Error(), "write "+full) {
		t.Errorf("error %v, want one of a full device", err)
	}
	if info, err := os.Lstat(full); err != nil || info.Mode()&fs.ModeCharDevice == 0 {
		t.Errorf("the device is %v, %v", info, err)
	}
}

// Links stay, and what they lead to is what is written, there or not.
func TestWriteThroughLinks(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	file, first, second := filepath.Join(dir, "a", "x.csv"), filepath.Join(dir, "b", "first"), filepath.Join(dir, "b", "second")
	for link, to := range map[string]string{first: "../a/x.csv", second: first} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"made", "replaced"} { // the links dangle at first
		if err := Write(second, writeText(text)); err != nil {
			t.Fatal(err)
		}
		wantOnly(t, file, text)
	}
	for _, link := range []string{first, second} {
		if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s is %v, %v", link, info, err)
		}
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	if err := Write(loop, writeText("x")); err == nil || !strings.Contains(err.Error(), "loop of symbolic links") {
		t.Errorf("a loop: %v", err)
	}
}
