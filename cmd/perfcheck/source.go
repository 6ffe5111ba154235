package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/archive"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// readBundle reads the bundle at a path: a folder, or a packed bundle.
func readBundle(path string, opts ...perfio.ReadOption) (*perfio.Bundle, error) {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		fsys, err := openPacked(path)
		if err != nil {
			return nil, err
		}
		b, err := perfio.ReadBundle(fsys, ".", opts...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		b.Dir = path
		return b, nil
	}
	return perfio.OpenBundle(path, opts...)
}

func openPacked(path string) (fs.FS, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	fsys, err := archive.Open(f)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return fsys, errors.Join(err, f.Close())
}

var tpFolder = regexp.MustCompile(`^tp[1-9][0-9]*$`)

// findBundles lists the bundle folders at and below a path, which may also be
// one packed bundle: folders that hold a meta.yaml or a tp<N> folder.
func findBundles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var found []string
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && name != path:
			return fs.SkipDir
		case d.IsDir() && tpFolder.MatchString(d.Name()), d.Name() == perfio.MetaFile && !d.IsDir():
			if dir := filepath.Dir(name); !slices.Contains(found, dir) {
				found = append(found, dir)
			}
			if d.IsDir() {
				return fs.SkipDir
			}
		}
		return nil
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s: found no bundle, expected a folder with %s and tp<N> folders at or below it", path, perfio.MetaFile)
	}
	return found, err
}

// tableFlags say which bundle answers lookups, and by which rules.
type tableFlags struct {
	bundle, root, hardware, model, variant string
	rules, arch, config                    string
	lenient, refuse                        bool
}

func (f *tableFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.bundle, "bundle", "", "the bundle's folder or packed file, in place of --root, --hardware, --model and --variant")
	flags.StringVar(&f.root, "root", "", "the folder that holds bundles as HARDWARE/MODEL/VARIANT")
	flags.StringVar(&f.hardware, "hardware", "", "the hardware's folder below the root")
	flags.StringVar(&f.model, "model", "", "the model's folder below that, as in meta-llama/Llama-3.1-8B")
	flags.StringVar(&f.variant, "variant", "", "the variant's folder below that; may be left out where there is only one")
	flags.StringVar(&f.rules, "rules", "parity", "parity (LLMServingSim's integers) or accurate")
	flags.StringVar(&f.arch, "arch", "", "an architecture file in place of the shipped one")
	flags.StringVar(&f.config, "model-config", "", "a config.json, or a folder that holds one, in place of the shipped one")
	flags.BoolVar(&f.lenient, "lenient", false, "take the first of duplicate keys, as LLMServingSim does, with a warning")
	flags.BoolVar(&f.refuse, "refuse", false, "give no answer where it would be extrapolated")
}

// path is the bundle that the flags name.
func (f *tableFlags) path() (string, error) {
	if f.bundle != "" {
		if f.root != "" || f.hardware != "" {
			return "", usagef("found --bundle beside --root or --hardware, expected one or the other")
		}
		return f.bundle, nil
	}
	for _, flag := range []struct{ name, value string }{{"root", f.root}, {"hardware", f.hardware}, {"model", f.model}} {
		if flag.value == "" {
			return "", usagef("found no --%s, expected --bundle, or --root, --hardware, --model and --variant", flag.name)
		}
	}
	dir := filepath.Join(f.root, f.hardware, filepath.FromSlash(f.model))
	if f.variant != "" {
		return filepath.Join(dir, f.variant), nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var variants []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), perfio.MetaFile)); err == nil {
			variants = append(variants, e.Name())
		}
	}
	if len(variants) != 1 {
		return "", usagef("found %d variants in %s (%s), expected --variant", len(variants), dir, strings.Join(variants, ", "))
	}
	return filepath.Join(dir, variants[0]), nil
}

// open builds the table; warnings go to standard error.
func (f *tableFlags) open(cmd *cobra.Command) (*traceloader.Table, error) {
	options := traceloader.Options{Lenient: f.lenient, Refuse: f.refuse}
	switch f.rules {
	case "parity":
	case "accurate":
		options.Rules = traceloader.Accurate
	default:
		return nil, usagef("--rules: found %q, expected parity or accurate", f.rules)
	}
	path, err := f.path()
	if err != nil {
		return nil, err
	}
	if f.arch != "" {
		if options.Architecture, err = perfio.OpenArchitecture(f.arch); err != nil {
			return nil, err
		}
	}
	if f.config != "" {
		if options.Model, err = perfio.LoadModelConfig(f.config); err != nil {
			return nil, err
		}
	}
	table, err := openTable(path, options)
	if err != nil {
		return nil, err
	}
	for _, w := range table.Warnings() {
		fmt.Fprintf(cmd.ErrOrStderr(), "perfcheck: warning: %s\n", w)
	}
	return table, nil
}

// openTable reads what lookups by the options need of the bundle at a path.
func openTable(path string, o traceloader.Options) (*traceloader.Table, error) {
	var read []perfio.ReadOption
	if o.Lenient {
		read = append(read, perfio.Lenient())
	}
	if o.Rules == traceloader.Parity {
		// Parity goes by the fit alone.
		read = append(read, perfio.Without(perfio.SkewFile, perfio.BatchesFile))
	}
	bundle, err := readBundle(path, read...)
	if err != nil {
		return nil, err
	}
	return traceloader.New(bundle, o)
}
