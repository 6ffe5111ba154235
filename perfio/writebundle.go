package perfio

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/layerprof/layerprof/internal/atomicfile"
)

// WriteBundle writes the bundle's files into folder dir, each one atomically
// and meta.yaml last: after a failure every file is either the old one or the
// new one. Tables that are nil are left alone, and so is whatever else the
// folder holds. A bundle with a row that cannot be written changes nothing.
func WriteBundle(dir string, b *Bundle) error {
	files := b.files()
	for _, f := range files {
		if err := f.write(io.Discard); err != nil {
			return err
		}
	}
	return writeFiles(dir, files)
}

// WriteTP writes the tables of one degree that are not nil into dir/tp<N>, each
// one atomically.
func WriteTP(dir string, tp *TP) error { return writeFiles(dir, tp.files()) }

// bundleFile is one file of a bundle, about to be written.
type bundleFile struct {
	name  string // in the bundle's folder, with slashes
	write func(io.Writer) error
}

func (b *Bundle) files() []bundleFile {
	var files []bundleFile
	for i := range b.TPs {
		files = append(files, b.TPs[i].files()...)
	}
	return append(files, bundleFile{MetaFile, func(w io.Writer) error { return WriteMeta(w, b.Meta) }})
}

func (tp *TP) files() []bundleFile {
	var files []bundleFile
	add := func(present bool, name string, write func(io.Writer) error) {
		if present {
			files = append(files, bundleFile{fmt.Sprintf("tp%d/%s", tp.Degree, name), write})
		}
	}
	add(tp.Dense != nil, DenseFile, func(w io.Writer) error { return WriteDense(w, tp.Dense) })
	add(tp.PerSequence != nil, PerSequenceFile, func(w io.Writer) error { return WritePerSequence(w, tp.PerSequence) })
	add(tp.Attention != nil, AttentionFile, func(w io.Writer) error { return WriteAttention(w, tp.Attention) })
	add(tp.MoE != nil, MoEFile, func(w io.Writer) error { return WriteMoE(w, tp.MoE) })
	add(tp.Skew != nil, SkewFile, func(w io.Writer) error { return WriteSkew(w, tp.Skew) })
	add(tp.SkewFit != nil, SkewFitFile, func(w io.Writer) error { return WriteSkewFit(w, tp.SkewFit) })
	add(tp.Collectives != nil, CollectivesFile, func(w io.Writer) error { return WriteCollectives(w, tp.Collectives) })
	add(tp.Batches != nil, BatchesFile, func(w io.Writer) error { return WriteBatches(w, tp.Batches) })
	add(tp.Steps != nil, StepFile, func(w io.Writer) error { return WriteStep(w, tp.Steps) })
	return files
}

func writeFiles(dir string, files []bundleFile) error {
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		if err := atomicfile.Write(path, f.write); err != nil {
			return err
		}
	}
	return nil
}
