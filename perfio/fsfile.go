package perfio

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// ioCause takes the path out of an error of the file system: the problem names
// the file already.
func ioCause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// openRegular opens a file and refuses what is not a regular one or too large.
func openRegular(fsys fs.FS, name string, maxBytes int64) (fs.File, int64, error) {
	// Stat first: opening a FIFO blocks.
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, &MismatchError{"no regular file (" + info.Mode().Type().String() + ")", "a file"}
	}
	if info.Size() > maxBytes {
		return nil, 0, &MismatchError{fmt.Sprintf("a file of %d bytes", info.Size()), fmt.Sprintf("at most %d", maxBytes)}
	}
	f, err := fsys.Open(name)
	return f, info.Size(), err
}

// readDocument reads a whole file of limited size.
func readDocument(fsys fs.FS, name string) ([]byte, error) {
	f, _, err := openRegular(fsys, name, MaxDocumentBytes)
	if err != nil {
		return nil, err
	}
	data, err := readLimited(f)
	return data, errors.Join(err, f.Close())
}

func readLimited(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxDocumentBytes+1))
	if err == nil && len(data) > MaxDocumentBytes {
		err = &MismatchError{fmt.Sprintf("more than %d bytes", MaxDocumentBytes), "a smaller document"}
	}
	return data, err
}
