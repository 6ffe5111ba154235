package vllmdriver

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed worker/*.py
var workerSource embed.FS

// sourceFolder is where the embedded worker stands in a process's temporary
// folder, and sourceMain what is run of it.
const (
	sourceFolder = "worker"
	sourceMain   = "main.py"
)

// workerHash identifies the embedded worker's sources.
func workerHash() (string, error) {
	sum := sha256.New()
	err := eachSource(func(name string, text []byte) error {
		fmt.Fprintf(sum, "%s %d\n", name, len(text))
		sum.Write(text)
		return nil
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// unpackWorker writes the embedded worker below dir, which is private, and
// returns the path of its main program.
func unpackWorker(dir string) (string, error) {
	dir = filepath.Join(dir, sourceFolder)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	err := eachSource(func(name string, text []byte) error {
		return os.WriteFile(filepath.Join(dir, name), text, 0o600)
	})
	return filepath.Join(dir, sourceMain), err
}

func eachSource(do func(name string, text []byte) error) error {
	entries, err := fs.ReadDir(workerSource, "worker")
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := fs.ReadFile(workerSource, "worker/"+e.Name())
		if err != nil {
			return err
		}
		if err := do(e.Name(), text); err != nil {
			return err
		}
	}
	return nil
}
