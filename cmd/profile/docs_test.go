package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/doctest"
)

func TestPages(t *testing.T) {
	for _, page := range []string{"docs/running.md", "docs/skew.md", "docs/architectures.md"} {
		t.Run(page, func(t *testing.T) {
			doctest.Run(t, page, doctest.Options{Binaries: map[string]string{"profile": "./cmd/profile"}})
		})
	}
}

// TestCampaignPages runs the pages on campaigns, as far as the scheduler of each
// is here: .ci/slurm starts a Slurm, .ci/kubernetes brings kubectl-validate.
func TestCampaignPages(t *testing.T) {
	for page, skip := range map[string]func(string) string{
		"docs/campaigns.md": nil, "docs/shell.md": nil,
		"docs/slurm.md": func(command string) string {
			for _, start := range []string{"profile run ", "profile campaign emit ", "grep "} {
				if os.Getenv("LAYERPROF_SLURM") != "" || strings.HasPrefix(command, start) {
					return ""
				}
			}
			return "LAYERPROF_SLURM says of no Slurm; .ci/slurm starts one"
		},
		"docs/kubernetes.md": func(command string) string {
			if _, err := exec.LookPath("kubectl-validate"); err != nil && strings.HasPrefix(command, "kubectl-validate ") {
				return "there is no kubectl-validate; .ci/kubernetes installs it"
			}
			return ""
		},
	} {
		t.Run(page, func(t *testing.T) {
			doctest.Run(t, page, doctest.Options{
				Binaries: map[string]string{"profile": "./cmd/profile", "perfcheck": "./cmd/perfcheck"}, Skip: skip,
			})
		})
	}
}
