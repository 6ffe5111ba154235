package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/archive"
	"github.com/layerprof/layerprof/internal/atomicfile"
	"github.com/layerprof/layerprof/perfio"
)

func newPackCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "pack BUNDLE -o FILE.tar.zst",
		Short: "Pack a bundle into one file",
		Long: "Pack writes a bundle's files into one .tar.zst whose first entry names each file with its SHA-256. Equal\n" +
			"bundles give equal files, byte for byte. Hidden files (the journal of a run) and links are left out and\n" +
			"named on standard error. Every verb reads a packed bundle as it reads a folder.",
		Args: exactArgs(1, "the bundle's folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output == "" {
				return usagef("found no --output, expected the file to write")
			}
			if !isPacked(output) {
				return usagef("--output: found %q, expected a name that ends in .tar.zst", output)
			}
			return pack(cmd.ErrOrStderr(), args[0], output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the file to write, replaced where it exists")
	return cmd
}

func pack(stderr io.Writer, dir, output string) error {
	// What cannot be read as a bundle is not worth packing.
	if _, err := perfio.OpenBundle(dir); err != nil {
		return err
	}
	var skipped []string
	err := atomicfile.Write(output, func(w io.Writer) (err error) {
		skipped, err = archive.Pack(w, os.DirFS(dir))
		return err
	})
	for _, name := range skipped {
		fmt.Fprintf(stderr, "perfcheck: left out: %s\n", name)
	}
	return err
}

func newUnpackCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unpack FILE.tar.zst FOLDER",
		Short: "Unpack a packed bundle into a new folder",
		Long: "Unpack checks every file of a packed bundle against its SHA-256 and writes them into a folder, which must\n" +
			"not exist or be empty. Nothing is written where a single check fails.",
		Args: exactArgs(2, "a packed bundle and the folder to write"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return unpack(args[0], args[1])
		},
	}
}

// unpack fills a sibling of the folder and renames it: the folder is there
// whole or not at all.
func unpack(file, dir string) (err error) {
	fsys, err := openPacked(file)
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s: found a folder that holds %d files or folders, expected none or an empty one", dir, len(entries))
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(filepath.Dir(dir), "."+strings.TrimLeft(filepath.Base(dir), ".")+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temporary))
		}
	}()
	if err := os.CopyFS(temporary, fsys); err != nil {
		return err
	}
	// MkdirTemp makes private folders; a bundle is like any other folder.
	if err := os.Chmod(temporary, 0o755); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Rename(temporary, dir)
}
