package vllmdriver

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed worker/*.py
var workerSource embed.FS

// unpackWorker writes the embedded worker to a private folder and returns it
// with the hash of the sources.
func unpackWorker() (dir, hash string, err error) {
	if dir, err = os.MkdirTemp("", "layerprof-worker-"); err != nil {
		return "", "", fmt.Errorf("unpack the worker: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("unpack the worker: %w", err), os.RemoveAll(dir))
		}
	}()
	entries, err := fs.ReadDir(workerSource, "worker")
	if err != nil {
		return "", "", err
	}
	sum := sha256.New()
	for _, e := range entries {
		text, err := fs.ReadFile(workerSource, "worker/"+e.Name())
		if err != nil {
			return "", "", err
		}
		fmt.Fprintf(sum, "%s %d\n", e.Name(), len(text))
		sum.Write(text)
		if err := os.WriteFile(filepath.Join(dir, e.Name()), text, 0o600); err != nil {
			return "", "", err
		}
	}
	return dir, hex.EncodeToString(sum.Sum(nil)), nil
}
