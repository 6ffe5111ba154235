package main

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// heldWorker is the example worker, which stands still at one operation, once its
// file "reached" says so, until there is a file "go". Of lists that are served it
// is the one with a prompt of 77 tokens.
const heldWorker = `
import os, sys, time
stage, folder, workers = sys.argv[1:4]
sys.path.insert(0, workers)
import serving, worker

class Held(serving.ServingWorker):
    pass

def held(name):
    def operation(self, request, send):
        if name == stage and (name != "serve" or any(r[0] == 77 for r in request["requests"])):
            with open(os.path.join(folder, "reached"), "a") as f:
                f.write("reached\n")
            while not os.path.exists(os.path.join(folder, "go")):
                time.sleep(0.01)
        return getattr(serving.ServingWorker, name)(self, request, send)
    return operation

for name in ("hello", "boot_serving", "serve"):
    setattr(Held, name, held(name))
sys.exit(worker.main(Held()))
`

const heldList = "request,input_tokens,output_tokens,arrival_ns\na,77,7,0\n"

// A signal while the driver describes itself, while an engine boots, and while
// requests are served: what has nothing to lose ends at once, a list is served to
// its end and judged, and no other one is begun. With the last list nothing is
// left, and the status is the judgement's.
func TestSignalsBeforeAndWhileServing(t *testing.T) {
	worker := servingWorker(t)
	bundle := servedBundle(t, worker)
	python, path, _ := strings.Cut(strings.TrimPrefix(worker, "exec:"), " ")
	list, script := filepath.Join(t.TempDir(), "list.csv"), filepath.Join(t.TempDir(), "held.py")
	for name, text := range map[string]string{list: heldList, script: heldWorker} {
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name, stage string
		check       bool // serve-check, else run
		signals     int
		let         bool   // the worker goes on after the signals
		last        string // of standard error
		judged      int    // modes
		status      int
		more        []string
	}{
		{"run describes", "hello", false, 1, false, "ended before the first shot", 0, exitPartial, nil},
		{"check describes", "hello", true, 1, false, "ended before the check was through", 0, exitPartial, nil},
		{"check boots", "boot_serving", true, 1, false, "ended before the check was through", 0, exitPartial, nil},
		{"check boots, twice", "boot_serving", true, 2, false, "ended before the check was through", 0, exitPartial, nil},
		{"check serves", "serve", true, 1, true, "ended before the check was through", 1, exitPartial, nil},
		{"check serves the last mode", "serve", true, 1, true, "requests served in", 1, exitOK, []string{"--mode", "eager_sync"}},
		{"check serves the last mode, badly", "serve", true, 1, true, "expected at most 0.0001%", 1, exitExceeded, []string{"--mode", "eager_sync", "--max-error", "0.0001"}},
		{"check serves the last mode, twice", "serve", true, 2, false, "ended before the check was through", 0, exitPartial, []string{"--mode", "eager_sync"}},
		{"check serves, twice", "serve", true, 2, false, "ended before the check was through", 0, exitPartial, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			folder, out := t.TempDir(), t.TempDir()
			driver := strings.Join([]string{"exec:" + python, script, test.stage, folder, filepath.Dir(path)}, " ")
			args := append([]string{"run", "--driver", driver, "--out", out}, smallSweep()...)
			if test.check {
				args = []string{"serve-check", bundle, "--driver", driver, "--out", out, "--requests", list}
				args = append(args, test.more...)
			}
			cmd, _, _ := profileProcess(args...)
			cmd.Stderr = nil
			pipe, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill() }() // where the test gives up
			waitForFile(t, filepath.Join(folder, "reached"), 1)
			stderr := bufio.NewReader(pipe)
			var log strings.Builder
			for i := range test.signals {
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				for i == 0 && !strings.Contains(log.String(), "a second signal leaves at once") {
					line, err := stderr.ReadString('\n')
					log.WriteString(line)
					if err != nil {
						t.Fatalf("%v: %s", err, &log)
					}
				}
			}
			if test.let {
				if err := os.WriteFile(filepath.Join(folder, "go"), nil, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := io.Copy(&log, stderr); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // its status is looked at below
			if status := cmd.ProcessState.ExitCode(); status != test.status || !strings.Contains(log.String(), test.last) {
				t.Errorf("status %d, expected %d and %q: %s", status, test.status, test.last, &log)
			}
			if kept, err := filepath.Glob(filepath.Join(out, "steps_*.jsonl.gz")); err != nil || len(kept) != test.judged {
				t.Errorf("%d modes served, %v, expected %d: %s", len(kept), err, test.judged, &log)
			}
			if _, err := os.Stat(filepath.Join(out, "report.json")); (err == nil) != (test.judged > 0) {
				t.Errorf("report: %v, expected one: %v", err, test.judged > 0)
			}
		})
	}
}
