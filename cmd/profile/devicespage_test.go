package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/layerprof/layerprof/internal/doctest"
)

func TestDevicesPage(t *testing.T) {
	doctest.Run(t, "docs/devices.md", doctest.Options{
		Binaries: map[string]string{"profile": "./cmd/profile", "perfcheck": "./cmd/perfcheck"},
		Setup: func(t *testing.T, dir string) {
			if err := os.CopyFS(filepath.Join(dir, "realtp"), os.DirFS("../../examples/realtp")); err != nil {
				t.Fatal(err)
			}
		},
	})
}
