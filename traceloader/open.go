package traceloader

import (
	"io/fs"

	"github.com/layerprof/layerprof/perfio"
)

// Open reads the bundle in a folder, <root>/<hardware>/<model>/<variant>, and
// builds its table. Symbolic links that leave the folder are refused. The error
// is perfio's, which lists every problem of the files that lookups need, or
// New's.
//
// Parity needs neither skew.csv nor batches.jsonl, so they are not read and not
// checked.
func Open(dir string, o Options) (*Table, error) {
	b, err := perfio.OpenBundle(dir, readOptions(o)...)
	if err != nil {
		return nil, err
	}
	return New(b, o)
}

// OpenFS is Open for folder dir of a file system, such as an archive or
// embedded files. Files are read in parallel.
func OpenFS(fsys fs.FS, dir string, o Options) (*Table, error) {
	b, err := perfio.ReadBundle(fsys, dir, readOptions(o)...)
	if err != nil {
		return nil, err
	}
	return New(b, o)
}

func readOptions(o Options) (options []perfio.ReadOption) {
	if o.Lenient {
		options = append(options, perfio.Lenient())
	}
	if o.Rules == Parity {
		options = append(options, perfio.Without(perfio.SkewFile, perfio.BatchesFile, perfio.CalibrationFile))
	}
	return options
}
