//go:build unix

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// On a terminal there is a bar for each category, with its rate and what it is
// at.
func TestRunOnATerminal(t *testing.T) {
	source, out := smallBundle(t), t.TempDir()
	cmd := exec.Command(os.Args[0], append([]string{"run", "--out", out, "--driver", "replay:" + source + ",delay_ms=3,fail=0.02,seed=5"}, smallSweep("--skip-skew", "--retries", "5")...)...)
	cmd.Env = append(os.Environ(), asProfile+"=1", "TERM=xterm")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 140})
	if err != nil {
		t.Fatal(err)
	}
	var screen bytes.Buffer
	_, _ = screen.ReadFrom(terminal) // ends with an error when the program closes it
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, screen.String())
	}
	text := screen.String()
	for _, want := range []string{
		`tp1 dense 28/28`, `tp1 attention 423/423`, `\[=+>?-*\]`, `[0-9.]+/s, [0-9]+s left, [0-9]+x[0-9]+@[0-9]+`,
		`, [0-9]+ retries`, `will be tried again: injected failure of attempt 1`, `shots measured, 0 had been before`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("the screen never showed %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%q", text[max(0, len(text)-4000):])
	}
	if _, err := os.Stat(filepath.Join(out, smallDir, "tp1", "attention.csv")); err != nil {
		t.Error(err)
	}
}

// Without one there are lines, and no control characters.
func TestRunWithoutATerminal(t *testing.T) {
	cmd, stdout, stderr := profileProcess(append([]string{"run", "--driver", "roofline", "--out", t.TempDir()}, smallSweep()...)...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	for _, want := range []string{"tp1: the engine runs on", "tp1 dense: 28 shots, 0 measured already", "tp1 attention: 420 of 420 measured"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("standard error lacks %q: %s", want, stderr)
		}
	}
	if strings.ContainsAny(stderr.String()+stdout.String(), "\x1b\r") {
		t.Errorf("control characters: %q", stderr)
	}
}
