package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// A driver that fails every shot ends the run as one to go on with.
func TestHopelessRun(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	var out, errs bytes.Buffer
	args := []string{"run", "--model", "meta-llama/Llama-3.1-8B", "--hardware", "H200", "--only", "dense"}
	if status := run(t.Context(), append(args, "--driver", "roofline", "--out", source), strings.NewReader(""), &out, &errs); status != exitOK {
		t.Fatalf("status %d: %s", status, errs.String())
	}
	bundle := filepath.Join(source, "H200", "meta-llama", "Llama-3.1-8B", "bf16")
	errs.Reset()
	status := run(t.Context(), append(args, "--driver", "replay:"+bundle+",fail=1", "--out", filepath.Join(t.TempDir(), "out")), strings.NewReader(""), &out, &errs)
	if status != exitPartial || !strings.Contains(errs.String(), "profile resume") {
		t.Errorf("status %d, want %d: %s", status, exitPartial, errs.String())
	}
}
