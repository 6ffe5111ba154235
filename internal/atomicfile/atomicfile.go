// Package atomicfile replaces a file as a whole or not at all.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Note: renameio does not build on Windows and does not fsync the folder, which
// is what makes the rename itself survive a power cut.

// Write has write fill a temporary sibling of path and puts it in path's place:
// fsync, rename, fsync of the folder. On any error, write's included, path is
// as it was (but for an error of the folder's fsync, after which path is the
// new file) and the sibling is gone. Permissions are those of a new file.
//
// A symbolic link stays, and what it leads to is replaced, or made where it
// leads to nothing. What is no regular file, such as a pipe or a device, cannot
// be replaced by one: write writes into it, and an error leaves what was written.
func Write(path string, write func(io.Writer) error) error {
	return system.write(path, write)
}

// file is what an *os.File is used for here.
type file interface {
	io.WriteCloser
	Sync() error
	Name() string
}

// operations are the system's, so that tests can make each of them fail.
type operations struct {
	create  func(path string) (file, error)
	rename  func(from, to string) error
	remove  func(path string) error
	syncDir func(dir string) error
}

var system = operations{create: create, rename: os.Rename, remove: os.Remove, syncDir: syncDir}

func (o operations) write(path string, write func(io.Writer) error) error {
	given := path
	if f := standard(path); f != nil {
		if err := write(f); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		// The rename would say no more than that something is there.
		return fmt.Errorf("write %s: found a folder, expected a file or nothing", path)
	case err == nil && !info.Mode().IsRegular():
		return writeInto(path, write)
	}
	if path, err = target(path); err != nil {
		return fmt.Errorf("write %s: %w", given, err)
	}
	f, err := o.create(path)
	var at *fs.PathError
	if errors.As(err, &at) {
		err = fmt.Errorf("folder %s: %w", filepath.Dir(path), at.Err) // nobody knows the sibling's name
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err = write(f); err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = o.rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, o.remove(f.Name())))
	}
	if err := o.syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// writeInto writes into a pipe or a device.
func writeInto(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// standard is the process's own output where the path is its name, as
// /dev/stdout is: what it leads to may hold more than this one's.
func standard(path string) *os.File {
	for range mostLinks {
		for _, f := range []*os.File{os.Stdout, os.Stderr} {
			fd := strconv.Itoa(int(f.Fd()))
			for _, dir := range []string{"/dev/fd", "/proc/self/fd", "/proc/" + strconv.Itoa(os.Getpid()) + "/fd"} {
				if filepath.Clean(path) == filepath.Join(dir, fd) {
					return f
				}
			}
		}
		var link bool
		if path, link = follow(path); !link {
			break
		}
	}
	return nil
}

const mostLinks = 40 // as the kernel follows

// target is what symbolic links at path lead to, whether or not it is there.
// filepath.EvalSymlinks wants it there.
func target(path string) (string, error) {
	for range mostLinks {
		to, link := follow(path)
		if !link {
			return path, nil // nothing, or no link; if it cannot be looked at, creating its sibling says why
		}
		path = to
	}
	return "", errors.New("found a loop of symbolic links")
}

// follow is where a link leads to.
func follow(path string) (to string, link bool) {
	to, err := os.Readlink(path)
	if err != nil {
		return path, false
	}
	if !filepath.IsAbs(to) {
		// Not filepath.Join: "link/.." is the parent of what link leads to.
		to = filepath.Dir(path) + string(filepath.Separator) + to
	}
	return to, true
}

// create opens a new sibling. os.CreateTemp would make it private (0600).
func create(path string) (file, error) {
	dir, base := filepath.Split(path)
	for i := 0; ; i++ {
		name := filepath.Join(dir, "."+base+"."+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(i)+".tmp")
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, fs.ErrExist) || i == 1000 {
			return nil, err
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	// Some file systems and Windows cannot sync a folder; then the rename is as
	// durable as they make it.
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrInvalid) || errors.Is(err, fs.ErrPermission) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
