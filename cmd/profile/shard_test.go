package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/layerprof/layerprof/profile"
)

// journalOf is a shard's file.
func journalOf(dir, shard string) string {
	s, _ := profile.ParseShard(shard)
	return filepath.Join(dir, profile.JournalDir, s.JournalName()+".jsonl")
}

// mergedFiles merges a bundle's shards and reads it.
func mergedFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	report, err := profile.MergeShards(profile.MergeOptions{Dir: dir})
	if err != nil || report.Missing != 0 {
		t.Fatalf("%v, %+v", err, report)
	}
	return bundleFiles(t, dir)
}

// Preempted in each way, a shard goes on where it was, and is through at once
// when it is started once more: the merge is one run's bundle.
func TestShardIsPreempted(t *testing.T) {
	source, whole, out := smallBundle(t), t.TempDir(), t.TempDir()
	if got := runCommand(t, append([]string{"run", "--driver", "replay:" + source, "--out", whole}, smallSweep()...)...); got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	dir := filepath.Join(out, smallDir)
	shard := func(i, delay string, more ...string) []string {
		return append([]string{"run", "--out", out, "--shard", i, "--driver", "replay:" + source + delay}, smallSweep(more...)...)
	}
	for _, test := range []struct {
		name, shard string
		signals     []os.Signal
		budget      string
	}{
		{"SIGTERM", "0/4", []os.Signal{syscall.SIGTERM}, "0"},
		// As a scheduler and a script that both pass it on may do.
		{"SIGTERM and SIGUSR1", "1/4", []os.Signal{syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR1}, "0"},
		{"budget", "2/4", nil, "400ms"},
		{"kill -9", "3/4", []os.Signal{syscall.SIGKILL}, "0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd, _, stderr := profileProcess(shard(test.shard, ",delay_ms=10", "--budget", test.budget)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if test.signals != nil {
				waitForFile(t, journalOf(dir, test.shard), 20)
			}
			for _, signal := range test.signals {
				if err := cmd.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait() // its status is looked at below
			if test.name == "kill -9" {
				if cmd.ProcessState.Exited() {
					t.Fatal("it was not killed")
				}
			} else if status := cmd.ProcessState.ExitCode(); status != exitPartial || !strings.Contains(stderr.String(), "ended early; to go on: profile resume "+dir+" --shard "+test.shard) {
				t.Fatalf("status %d: %s", status, stderr)
			}
			if got := runCommand(t, shard(test.shard, "")...); got.status != exitOK || !strings.Contains(got.stdout, "shard "+test.shard+": ") {
				t.Fatalf("status %d: %s%s", got.status, got.stdout, got.stderr)
			}
			again := runCommand(t, shard(test.shard, "")...)
			if again.status != exitOK || !strings.Contains(again.stdout, " 0 shots measured") || strings.Contains(again.stderr, "starting the engine") {
				t.Errorf("started again: status %d: %s%s", again.status, again.stdout, again.stderr)
			}
		})
	}
	sameFiles(t, mergedFiles(t, dir), bundleFiles(t, filepath.Join(whole, smallDir)))
	if got := runCommand(t, "resume", dir, "--shard", "2/4"); got.status != exitOK || !strings.Contains(got.stdout, " 0 shots measured") {
		t.Errorf("resume: status %d: %s%s", got.status, got.stdout, got.stderr)
	}
}

func TestShardUsage(t *testing.T) {
	for _, text := range []string{"3", "4/3", "-1/2", "x/y", "0/0", ""} {
		args := append([]string{"run", "--driver", "roofline", "--out", t.TempDir(), "--shard", text}, smallSweep()...)
		if got := runCommand(t, args...); got.status != exitUsage || !strings.Contains(got.stderr, "shard: found") {
			t.Errorf("--shard %s: status %d: %s", text, got.status, got.stderr)
		}
	}
}

// A run that ended before it looked says no number of what had been measured.
func TestEndedBeforeItLooked(t *testing.T) {
	var stdout, stderr bytes.Buffer
	err := (&app{stdout: &stdout, stderr: &stderr}).conclude(&profile.Report{Dir: "d", Stopped: true, Unbegun: true}, nil)
	if exitStatus(err, true) != exitPartial || stdout.String() != "d: 0 shots measured, it ended before it counted those that had been before, which stay\n" {
		t.Errorf("%v: %s", err, &stdout)
	}
}

// A shard of another division is refused, until the files of the one that there
// is are no shards' any more; then they still count.
func TestShardOfAnotherDivision(t *testing.T) {
	source, out := smallBundle(t), t.TempDir()
	dir := filepath.Join(out, smallDir)
	run := func(shard string) result {
		return runCommand(t, append([]string{"run", "--out", out, "--shard", shard, "--driver", "replay:" + source}, smallSweep("--variant", "bf16")...)...)
	}
	path := smallCampaign(t, filepath.Dir(out), source, "")
	if err := os.WriteFile(path, []byte(strings.Replace(readText(t, path), "out: "+filepath.Join(filepath.Dir(out), "perf"), "out: "+out, 1)+"shards: 4\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if got := run("0/3"); got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	for _, shard := range []string{"0/99999", "1/4"} {
		got := run(shard)
		if got.status != exitUsage || !strings.Contains(got.stderr, "shard: found one of "+strings.Split(shard, "/")[1]+" of a bundle that is divided in 3, expected i/3, or that all of these are through; ") ||
			lineCount(journalOf(dir, shard)) != 0 {
			t.Errorf("%s: status %d: %s", shard, got.status, got.stderr)
		}
	}
	if got := runCommand(t, "campaign", "plan", path); got.status != exitUsage || !strings.Contains(got.stderr, path+":10:9: shards: found one of 4 of a bundle that is divided in 3") {
		t.Errorf("plan: status %d: %s%s", got.status, got.stdout, got.stderr)
	}
	if err := os.Rename(journalOf(dir, "0/3"), filepath.Join(dir, profile.JournalDir, "before-1.jsonl")); err != nil {
		t.Fatal(err)
	}
	reused := false
	for _, shard := range []string{"0/4", "1/4", "2/4", "3/4"} {
		got := run(shard)
		if got.status != exitOK {
			t.Fatalf("status %d: %s", got.status, got.stderr)
		}
		reused = reused || !strings.Contains(got.stdout, ", 0 had been before")
	}
	if !reused {
		t.Error("what the renamed file holds was measured again")
	}
	sameTables(t, mergedFiles(t, dir), bundleFiles(t, source))
	// A campaign of another number has nothing to divide any more.
	if got := runCommand(t, "campaign", "plan", path); got.status != exitOK {
		t.Errorf("plan: status %d: %s%s", got.status, got.stdout, got.stderr)
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A scheduler that lost sight of a job may start it a second time: that one ends
// with 3, to be tried again, and the first one goes on.
func TestShardTwiceAtATime(t *testing.T) {
	source, out := smallBundle(t), t.TempDir()
	args := append([]string{"run", "--out", out, "--shard", "0/2", "--driver", "replay:" + source + ",delay_ms=10"}, smallSweep()...)
	first, _, stderr := profileProcess(args...)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	waitForFile(t, journalOf(filepath.Join(out, smallDir), "0/2"), 10)
	if got := runCommand(t, args...); got.status != exitPartial || !strings.Contains(got.stderr, "another run is at work here") {
		t.Errorf("status %d: %s%s", got.status, got.stdout, got.stderr)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("the first: %v: %s", err, stderr)
	}
}

// A division that is through, by --gpus or shard by shard, stands in no other's
// way; one of which a shard was begun again does.
func TestShardAfterAllOfAnotherDivision(t *testing.T) {
	source := smallBundle(t)
	for _, division := range [][]string{{"--gpus", "0,1"}, {"--shard", "0/2", "--shard", "1/2"}} {
		out := t.TempDir()
		dir := filepath.Join(out, smallDir)
		run := func(flags ...string) result {
			return runCommand(t, append([]string{"run", "--out", out, "--driver", "replay:" + source}, smallSweep(slices.Concat(flags, []string{"--variant", "bf16"})...)...)...)
		}
		for i := 0; i < len(division); i += 2 {
			if i == 2 {
				if got := run("--shard", "0/3"); got.status != exitUsage {
					t.Errorf("one of %v is through: status %d: %s", division, got.status, got.stderr)
				}
			}
			if got := run(division[i : i+2]...); got.status != exitOK {
				t.Fatalf("%v: status %d: %s", division, got.status, got.stderr)
			}
		}
		if got := run("--shard", "1/3"); got.status != exitOK || !strings.Contains(got.stdout, " 0 shots measured") {
			t.Errorf("after %v: status %d: %s%s", division, got.status, got.stdout, got.stderr)
		}
		sameTables(t, mergedFiles(t, dir), bundleFiles(t, source))
		// Begun again, and killed: its journal ends with what it was to measure.
		name := journalOf(dir, "0/2")
		lines := strings.SplitAfter(readText(t, name), "\n")
		last := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, `"k":"end"`) })
		if last < 0 {
			t.Fatalf("%s has no end", name)
		}
		if err := os.WriteFile(name, []byte(strings.Join(lines[:last], "")), 0o666); err != nil {
			t.Fatal(err)
		}
		if got := run("--shard", "0/4"); got.status != exitUsage || !strings.Contains(got.stderr, "a bundle that is divided in 2 and in 3, expected i/2 or i/3") {
			t.Errorf("%v, of which one is not through: status %d: %s", division, got.status, got.stderr)
		}
	}
}
