// Package bundles holds measured bundles, compressed: a program that imports it
// carries them, and simulates without a GPU or a download.
//
//	b, err := bundles.Open("H200", "Qwen/Qwen3-32B", "bf16")
//	...
//	table, err := traceloader.New(b, traceloader.Options{})
//
// The H100 and H200 ones were measured by this module and stand unpacked in perf.
// The RTX PRO 6000 ones are LLMServingSim 2.0's; see NOTICE. Everything is safe
// for concurrent use.
package bundles

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/layerprof/layerprof/internal/archive"
	"github.com/layerprof/layerprof/perfio"
)

//go:embed data
var data embed.FS

const suffix = ".tar.zst"

// ErrNotBundled is the error, wrapped, of names that are not in the package.
var ErrNotBundled = errors.New("no such bundle in the package")

// Name names a bundle.
type Name struct {
	Hardware string // H200
	Model    string // Qwen/Qwen3-32B
	Variant  string // bf16
}

func (n Name) String() string { return path.Join(n.Hardware, n.Model, n.Variant) }

// List names the bundles, sorted.
func List() []Name {
	var names []Name
	err := fs.WalkDir(data, "data", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, suffix) {
			return err
		}
		parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(file, "data/"), suffix), "/")
		if len(parts) < 3 {
			return fmt.Errorf("bundles: found %s, expected hardware, model and variant", file)
		}
		last := len(parts) - 1
		names = append(names, Name{parts[0], strings.Join(parts[1:last], "/"), parts[last]})
		return nil
	})
	if err != nil {
		panic("bundles: " + err.Error()) // the package was built wrongly; a test reads all
	}
	return names
}

// Open reads a bundle. It is the caller's to keep.
func Open(hardware, model, variant string) (*perfio.Bundle, error) {
	fsys, err := FS(hardware, model, variant)
	if err != nil {
		return nil, err
	}
	b, err := perfio.ReadBundle(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("bundles: %s: %w", Name{hardware, model, variant}, err)
	}
	b.Dir = Name{hardware, model, variant}.String()
	return b, nil
}

// FS gives a bundle's files, unpacked and checked, with the bundle in its root:
// meta.yaml, tp<N>/*.csv and the batches kept for validation.
func FS(hardware, model, variant string) (fs.FS, error) {
	name := Name{hardware, model, variant}
	packed, err := data.ReadFile(path.Join("data", name.String()) + suffix)
	if err != nil {
		return nil, fmt.Errorf("bundles: %s: %w", name, ErrNotBundled)
	}
	return archive.Open(bytes.NewReader(packed))
}
