package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
)

// Open reads a packed folder into memory and checks every file against the
// manifest. A name that leaves the folder, a link, a file that the manifest
// does not name or that is missing, a cut or altered archive, and bytes after
// its end are errors.
func Open(r io.Reader) (fs.FS, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	defer z.Close()
	t := tar.NewReader(z)
	header, err := t.Next()
	if errors.Is(err, zstd.ErrMagicMismatch) {
		return nil, errors.New("archive: found no packed bundle, expected a .tar.zst that perfcheck pack made")
	}
	if err != nil {
		return nil, fmt.Errorf("archive: %w", cut(err))
	}
	if header.Name != ManifestName {
		return nil, fmt.Errorf("archive: found %q first, expected %s", header.Name, ManifestName)
	}
	text, err := readEntry(t, header, MaxFiles*1100)
	if err != nil {
		return nil, err
	}
	manifest, err := parseManifest(string(text))
	if err != nil {
		return nil, err
	}
	files := fstest.MapFS{}
	total := int64(0)
	for {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("archive: %w", cut(err))
		}
		want, ok := manifest[header.Name]
		switch {
		case header.Typeflag != tar.TypeReg:
			return nil, fmt.Errorf("archive: %q: found an entry that is no regular file", header.Name)
		case !ok:
			return nil, fmt.Errorf("archive: %q: found a file that the manifest does not name", header.Name)
		case files[header.Name] != nil:
			return nil, fmt.Errorf("archive: %q: found twice", header.Name)
		}
		if total += header.Size; total > MaxBytes {
			return nil, fmt.Errorf("archive: found more than %d bytes", int64(MaxBytes))
		}
		data, err := readEntry(t, header, MaxFileBytes)
		if err != nil {
			return nil, err
		}
		if sum := sha256.Sum256(data); int64(len(data)) != want.size || hex.EncodeToString(sum[:]) != want.sum {
			return nil, fmt.Errorf("archive: %q: found other contents than the manifest's SHA-256 says", header.Name)
		}
		files[header.Name] = &fstest.MapFile{Data: data, Mode: 0o444}
	}
	for name := range manifest {
		if files[name] == nil {
			return nil, fmt.Errorf("archive: %q: missing, the manifest names it", name)
		}
	}
	if err := atEnd(z); err != nil {
		return nil, err
	}
	return files, nil
}

// maxPadding of zeros after the last entry; tar programs fill up a record of
// some KB.
const maxPadding = 1 << 20

// atEnd refuses what follows the archive. It also reads the checksum of the
// compressed frame, which stands at its end.
func atEnd(z io.Reader) error {
	padding, buffer := 0, make([]byte, 4096)
	for {
		n, err := z.Read(buffer)
		if padding += n; padding > maxPadding || len(bytes.Trim(buffer[:n], "\x00")) > 0 {
			return errors.New("archive: found more bytes after the archive's end")
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, zstd.ErrMagicMismatch):
			return errors.New("archive: found more bytes after the archive's end")
		case err != nil:
			return fmt.Errorf("archive: after the last file: %w", cut(err))
		}
	}
}

func readEntry(t *tar.Reader, header *tar.Header, most int64) ([]byte, error) {
	if header.Size > most {
		return nil, fmt.Errorf("archive: %q: found %d bytes, expected at most %d", header.Name, header.Size, most)
	}
	var b bytes.Buffer // grows with what really comes, not with what the header claims
	if _, err := io.Copy(&b, io.LimitReader(t, most+1)); err != nil {
		return nil, fmt.Errorf("archive: %q: %w", header.Name, cut(err))
	}
	return b.Bytes(), nil
}

// cut says what an end of the file inside the archive is.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the file is cut off", io.ErrUnexpectedEOF)
	}
	return err
}

type manifestEntry struct {
	sum  string
	size int64
}

func parseManifest(text string) (map[string]manifestEntry, error) {
	out := map[string]manifestEntry{}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		fields := strings.SplitN(line, " ", 3)
		if len(fields) != 3 {
			return nil, fmt.Errorf("%s:%d: found %q, expected SHA-256, size and name", ManifestName, i+1, line)
		}
		size, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil || size < 0 {
			return nil, fmt.Errorf("%s:%d: size: found %q, expected bytes", ManifestName, i+1, fields[1])
		}
		if name := fields[2]; !fs.ValidPath(name) || name == "." || strings.Contains(name, `\`) {
			return nil, fmt.Errorf("%s:%d: name: found %q, expected a path inside the folder", ManifestName, i+1, name)
		}
		if _, ok := out[fields[2]]; ok {
			return nil, fmt.Errorf("%s:%d: name: found %q twice", ManifestName, i+1, fields[2])
		}
		out[fields[2]] = manifestEntry{fields[0], size}
	}
	return out, nil
}
