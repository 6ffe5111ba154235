// Package archive packs a folder into one .tar.zst file and reads it back as a
// file system. Equal folders give equal files, byte for byte. The first entry
// is the manifest, which names every file with its size and SHA-256; reading
// checks all of them.
package archive

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// ManifestName is the archive's first entry; a folder must not hold a file of
// that name.
const ManifestName = "MANIFEST.sha256"

// Limits on what is packed or read: a bundle is a few MB.
const (
	MaxFiles     = 10_000
	MaxFileBytes = 1 << 30
	MaxBytes     = 4 << 30
)

// Pack writes the regular files of fsys to w. Hidden files and folders (the
// journal among them) and links are left out; skipped names them.
func Pack(w io.Writer, fsys fs.FS) (skipped []string, err error) {
	names, skipped, err := list(fsys)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, errors.New("archive: found no files, expected a bundle")
	}
	var manifest strings.Builder
	for _, name := range names {
		sum, size, err := hashFile(fsys, name)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&manifest, "%s %d %s\n", sum, size, name)
	}
	// One thread: the frame's layout then does not go by the machine.
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, err
	}
	t := tar.NewWriter(z)
	defer func() { err = errors.Join(err, t.Close(), z.Close()) }()
	if err := writeEntry(t, ManifestName, int64(manifest.Len()), strings.NewReader(manifest.String())); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := packFile(t, fsys, name); err != nil {
			return nil, err
		}
	}
	return skipped, nil
}

func list(fsys fs.FS) (names, skipped []string, err error) {
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case strings.HasPrefix(d.Name(), "."):
			skipped = append(skipped, name)
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.IsDir():
		case !d.Type().IsRegular():
			skipped = append(skipped, name)
		case name == ManifestName:
			return fmt.Errorf("archive: %s: found a file of the manifest's name", name)
		default:
			if names = append(names, name); len(names) > MaxFiles {
				return fmt.Errorf("archive: found more than %d files", MaxFiles)
			}
		}
		return nil
	})
	sort.Strings(names)
	return names, skipped, err
}

func hashFile(fsys fs.FS, name string) (string, int64, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return "", 0, err
	}
	h := sha256.New()
	size, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, errors.Join(err, f.Close())
}

func packFile(t *tar.Writer, fsys fs.FS, name string) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(writeEntry(t, name, info.Size(), f), f.Close())
}

func writeEntry(t *tar.Writer, name string, size int64, r io.Reader) error {
	// No times, owners or modes of the machine: equal folders, equal files.
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatPAX}
	if err := t.WriteHeader(header); err != nil {
		return err
	}
	if _, err := io.Copy(t, r); err != nil {
		return fmt.Errorf("archive: %s: %w", name, err)
	}
	return nil
}
