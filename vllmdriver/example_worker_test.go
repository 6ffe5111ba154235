package vllmdriver

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/layerprof/layerprof/profile"
)

// exampleWorker is the command of the example worker.
func exampleWorker(t testing.TB) []string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 for the example worker")
	}
	path, err := filepath.Abs("../examples/worker/worker.py")
	if err != nil {
		t.Fatal(err)
	}
	return []string{python, path}
}

// shell runs script before the example worker, in its place in the group.
func shell(t testing.TB, script string) []string {
	return append([]string{"/bin/sh", "-c", script + ` exec "$@"`, "sh"}, exampleWorker(t)...)
}

// newDriver is a driver that is closed, and must leave nothing, at the end.
func newDriver(t testing.TB, options Options) *Driver {
	t.Helper()
	d, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return d
}

func smallEngine(t testing.TB) profile.EngineSpec {
	t.Helper()
	var spec profile.EngineSpec
	if err := smallSpec(&spec); err != nil {
		t.Fatal(err)
	}
	return spec
}

func boot(t testing.TB, d *Driver) *profile.Engine {
	t.Helper()
	e, err := d.Boot(t.Context(), smallEngine(t))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// decodes are n shots of one decode each, all different.
func decodes(n int) []profile.Shot {
	shots := make([]profile.Shot, n)
	for i := range shots {
		shots[i] = profile.Shot{Groups: []profile.Group{{Count: 1, NewTokens: 1, KVHistory: 1 + i%1000}}}
	}
	return shots
}

var samples = profile.MeasureOptions{Warmup: 1, Iterations: 3}

// measureAll wants a good result of every shot.
func measureAll(t testing.TB, d *Driver, shots []profile.Shot) {
	t.Helper()
	seen := make([]int, len(shots))
	err := d.Measure(t.Context(), shots, samples, func(r profile.Result) error {
		if r.Status != profile.OK {
			t.Errorf("shot %d: found %s (%s), expected ok", r.Index, r.Status, r.Message)
		}
		seen[r.Index]++
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for i, n := range seen {
		if n != 1 {
			t.Errorf("shot %d: found %d results, expected 1", i, n)
		}
	}
}

// nothingLeft waits for a process that we did not start ourselves to be cleared
// away: its group, its folder and its guard.
func nothingLeft(t testing.TB, group, guard int, tmp string, within time.Duration) {
	t.Helper()
	began := time.Now()
	for {
		left := groupMembers(group)
		_, tmpErr := os.Stat(tmp)
		guardGone := !isGuard(guard)
		switch {
		case len(left) == 0 && guardGone && errors.Is(tmpErr, os.ErrNotExist):
			return
		case time.Since(began) > within:
			t.Fatalf("after %v: processes %v, guard gone %v, folder %s: %v", within, left, guardGone, tmp, tmpErr)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func isGuard(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "cmdline"))
	return err == nil && strings.Contains(string(text), "layerprof-guard")
}

func lostEngine(t testing.TB, err error) *profile.EngineLostError {
	t.Helper()
	var lost *profile.EngineLostError
	if !errors.As(err, &lost) {
		t.Fatalf("found %v, expected a *profile.EngineLostError", err)
	}
	return lost
}
