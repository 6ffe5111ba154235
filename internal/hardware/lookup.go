package hardware

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
)

//go:embed specs/*.yaml
var specFS embed.FS

// catalogue is parsed once; the tests see to it that it cannot fail.
var catalogue = sync.OnceValues(func() ([]*Spec, error) {
	names, err := fs.Glob(specFS, "specs/*.yaml")
	if err != nil {
		return nil, err
	}
	var all []*Spec
	for _, name := range names {
		data, err := specFS.ReadFile(name)
		if err != nil {
			return nil, err
		}
		spec, err := Parse(path.Base(name), data)
		if err != nil {
			return nil, fmt.Errorf("built-in hardware: %w", err)
		}
		all = append(all, spec)
	}
	return all, nil
})

// All lists the built-in specifications, ascending by file name.
func All() []*Spec {
	all, err := catalogue()
	if err != nil {
		panic("hardware: " + err.Error()) // a file of this package is broken
	}
	return append([]*Spec(nil), all...)
}

// Keys lists the keys of All.
func Keys() []string {
	var keys []string
	for _, s := range All() {
		keys = append(keys, s.Key)
	}
	return keys
}

// ByKey finds a built-in specification by its key, whatever the case.
func ByKey(key string) (*Spec, bool) {
	for _, s := range All() {
		if strings.EqualFold(s.Key, key) {
			return s, true
		}
	}
	return nil, false
}

// ByName finds a built-in specification by the name that a driver reports, as
// meta.yaml's gpu has it: "NVIDIA H100 80GB HBM3". Case and the width of white
// space do not matter, everything else does.
func ByName(name string) (*Spec, bool) {
	want := fold(name)
	if want == "" {
		return nil, false
	}
	for _, s := range All() {
		for _, n := range s.Names {
			if fold(n) == want {
				return s, true
			}
		}
	}
	return nil, false
}

// SMCount is the number of streaming multiprocessors of the GPU that a driver
// reports under this name, 0 where it is not known.
func SMCount(name string) int {
	if s, ok := ByName(name); ok {
		return s.SMCount()
	}
	return 0
}

func fold(name string) string { return strings.ToLower(strings.Join(strings.Fields(name), " ")) }
