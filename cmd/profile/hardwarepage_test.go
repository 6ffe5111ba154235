package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/doctest"
)

// The pages whose commands run on the example workers.
func TestWorkerPages(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("the pages' workers need python3")
	}
	for _, page := range []string{"docs/hardware.md", "docs/steps.md"} {
		t.Run(page, func(t *testing.T) {
			doctest.Run(t, page, doctest.Options{
				Binaries: map[string]string{"profile": "./cmd/profile", "perfcheck": "./cmd/perfcheck"},
				Setup: func(t *testing.T, dir string) {
					for _, name := range []string{"worker.py", "serving.py"} {
						worker, err := os.ReadFile(filepath.Join("../../examples/worker", name))
						if err != nil {
							t.Fatal(err)
						}
						if err := os.WriteFile(filepath.Join(dir, name), worker, 0o644); err != nil {
							t.Fatal(err)
						}
					}
				},
				Skip: func(command string) string {
					if strings.Contains(command, "--driver vllm") {
						return "it needs a GPU and vLLM"
					}
					return ""
				},
			})
		})
	}
}
