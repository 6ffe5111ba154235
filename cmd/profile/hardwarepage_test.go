package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/doctest"
)

func TestHardwarePage(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("the page's worker needs python3")
	}
	doctest.Run(t, "docs/hardware.md", doctest.Options{
		Binaries: map[string]string{"profile": "./cmd/profile", "perfcheck": "./cmd/perfcheck"},
		Setup: func(t *testing.T, dir string) {
			worker, err := os.ReadFile("../../examples/worker/worker.py")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "worker.py"), worker, 0o644); err != nil {
				t.Fatal(err)
			}
		},
		Skip: func(command string) string {
			if strings.Contains(command, "--driver vllm") {
				return "it needs a GPU and vLLM"
			}
			return ""
		},
	})
}
