//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/layerprof/layerprof/internal/watch"
	"github.com/layerprof/layerprof/profile"
)

// programs are profile and perfcheck, built: watch is about processes.
func programs(t *testing.T) (profile, perfcheck string) {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir, "../profile", ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return filepath.Join(dir, "profile"), filepath.Join(dir, "perfcheck")
}

// sweep are the arguments of a run of about 500 shots at two degrees.
func sweep(out string, more ...string) []string {
	return append([]string{"run", "--model", "meta-llama/Llama-3.1-8B", "--hardware", "H100", "--tp", "1,2", "--skip-skew", "--iterations", "3",
		"--max-num-batched-tokens", "64", "--max-num-seqs", "4", "--attention-max-kv", "256", "--out", out}, more...)
}

const sweepDir = "H100/meta-llama/Llama-3.1-8B/bf16"

// startRun starts a replay of a computed bundle, a few milliseconds a shot, and
// waits until its journal holds some shots.
func startRun(t *testing.T, program, faults string) (cmd *exec.Cmd, root string) {
	t.Helper()
	from, root := t.TempDir(), t.TempDir()
	if out, err := exec.Command(program, sweep(from, "--driver", "roofline")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd = exec.Command(program, sweep(root, "--driver", "replay:"+filepath.Join(from, sweepDir)+faults)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // it may have ended
	for {
		journal, err := os.ReadFile(filepath.Join(root, sweepDir, profile.JournalDir, "shots.jsonl"))
		if err == nil && bytes.Count(journal, []byte(`"k":"shot"`)) > 20 {
			return cmd, root
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func once(t *testing.T, program, dir string) watch.Status {
	t.Helper()
	out, err := exec.Command(program, "watch", dir, "--once", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var s watch.Status
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return s
}

func TestWatch(t *testing.T) {
	profileProgram, perfcheck := programs(t)
	run, root := startRun(t, profileProgram, ",delay_ms=5,noise=0.01,drift=0.03,fail=0.01,seed=3")
	if s := once(t, perfcheck, root); s.State != watch.Running || s.PID != run.Process.Pid || len(s.Parts) == 0 || s.Parts[0].Total == 0 {
		t.Errorf("a running one: %+v", s)
	}
	out, err := exec.Command(perfcheck, "watch", root, "--every", "100ms").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if err := run.Wait(); err != nil {
		t.Fatalf("the run itself: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	last := lines[len(lines)-1]
	if !regexp.MustCompile(`^ended after [0-9a-z]+: complete; all (\d+)/(\d+); `).MatchString(last) || strings.ContainsAny(string(out), "\x1b\r") || len(lines) < 3 {
		t.Errorf("%d lines, the last: %q", len(lines), last)
	}
	progress := regexp.MustCompile(`all (\d+)/(\d+)`)
	most := 0
	for _, line := range lines {
		if m := progress.FindStringSubmatch(line); m != nil {
			done, _ := strconv.Atoi(m[1])
			most = max(most, done)
		}
	}
	plan, err := exec.Command(profileProgram, append([]string{"plan", "--json"}, sweep(root, "--driver", "roofline")[1:]...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var summary profile.Summary
	if err := json.Unmarshal(plan, &summary); err != nil {
		t.Fatal(err)
	}
	s := once(t, perfcheck, root)
	total := 0
	for _, p := range s.Parts {
		if p.Done != p.Total {
			t.Errorf("complete: %+v", p)
		}
		total += p.Total
	}
	if s.State != watch.Ended || s.Outcome != profile.EndComplete || total != summary.TotalShots || most != total {
		t.Errorf("%s %s: %d shots, %d planned, %d seen", s.State, s.Outcome, total, summary.TotalShots, most)
	}
	// The samples' range is that of three draws of 1% noise; the device's other state is 3% off.
	if s.SpreadP50 == nil || *s.SpreadP50 < 1 || *s.SpreadP50 > 3 || s.Anchors.Count < 4 || s.Anchors.Slowest < 1 || s.Anchors.Slowest > 8 {
		t.Errorf("spread %v, anchors %+v", s.SpreadP50, s.Anchors)
	}
	if s.ShotsPerSecond <= 0 || s.ShotsPerSecond > 200 {
		t.Errorf("%g shots a second, a shot takes 5 ms and more", s.ShotsPerSecond)
	}
	if got := recorded(t, filepath.Join(root, sweepDir)); s.Anchors.Count != got["anchor"] || s.Redone != got["redone"] {
		t.Errorf("%d anchors and %d blocks again, the journal has %v", s.Anchors.Count, s.Redone, got)
	}
}

// recorded counts the journal's records of some kinds.
func recorded(t *testing.T, dir string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, profile.JournalDir, "shots.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]int{"anchor": bytes.Count(text, []byte(`{"k":"anchor"`)), "redone": bytes.Count(text, []byte(`"redone":true`))}
}

// A run that is killed ends the watch with status 5; one that goes on counts
// what there was.
func TestWatchKilled(t *testing.T) {
	profileProgram, perfcheck := programs(t)
	run, root := startRun(t, profileProgram, ",delay_ms=5")
	watching := exec.Command(perfcheck, "watch", filepath.Join(root, sweepDir), "--every", "50ms")
	var out bytes.Buffer
	watching.Stdout, watching.Stderr = &out, &out
	if err := watching.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if err := run.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = run.Wait() // killed
	_ = watching.Wait()
	if status := watching.ProcessState.ExitCode(); status != exitProblems || !strings.Contains(out.String(), "went without a word") {
		t.Errorf("status %d: %s", status, &out)
	}
	before := once(t, perfcheck, root)
	if out, err := exec.Command(profileProgram, "resume", filepath.Join(root, sweepDir)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	after := once(t, perfcheck, root)
	done := func(s watch.Status) (n int) {
		for _, p := range s.Parts {
			n += p.Done
		}
		return n
	}
	if after.State != watch.Ended || after.Outcome != profile.EndComplete || done(before) < 20 || done(after) <= done(before) {
		t.Errorf("%d shots before, %d after: %s %s", done(before), done(after), after.State, after.Outcome)
	}
}

// On a terminal the page replaces itself.
func TestWatchOnATerminal(t *testing.T) {
	profileProgram, perfcheck := programs(t)
	_, root := startRun(t, profileProgram, ",delay_ms=4")
	cmd := exec.Command(perfcheck, "watch", root, "--every", "50ms")
	cmd.Env = append(os.Environ(), "TERM=xterm")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	var screen bytes.Buffer
	_, _ = screen.ReadFrom(terminal) // ends with an error when the program closes it
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &screen)
	}
	for _, want := range []string{
		`\x1b\[\d+A\x1b\[2K`, `  running for \d+s \(process \d+\)`, `tp1  dense        \[=+\] +28/28 +100%`, `tp2  attention    \[=*-+\] `,
		`  shots +[0-9.]+ shots/s, \d+s left`, `  anchors +\d+ anchors, now `, `  failures +0 failed`, `  ended after \d+s: complete`,
	} {
		if !regexp.MustCompile(want).Match(screen.Bytes()) {
			t.Errorf("the screen never showed %s", want)
		}
	}
	for _, line := range strings.Split(screen.String(), "\n") {
		if text := regexp.MustCompile(`\x1b\[[0-9]*[A-Z]`).ReplaceAllString(strings.TrimRight(line, "\r"), ""); len([]rune(text)) > 99 {
			t.Errorf("a line of %d characters wraps: %q", len([]rune(text)), text)
		}
	}
	if t.Failed() {
		t.Logf("%q", screen.String()[max(0, screen.Len()-3000):])
	}
}

func TestWatchUsage(t *testing.T) {
	empty := t.TempDir()
	two := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.MkdirAll(filepath.Join(two, name, profile.JournalDir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{"watch"}, exitUsage, "a bundle's folder"},
		{[]string{"watch", empty, "--every", "-1s"}, exitUsage, "--every"},
		{[]string{"watch", empty}, exitFailed, "found no journal"},
		{[]string{"watch", filepath.Join(empty, "absent")}, exitFailed, "found no such folder"},
		{[]string{"watch", two}, exitFailed, "found 2 runs"},
	} {
		if status, _, stderr := call(t, "", test.args...); status != test.status || !strings.Contains(stderr, test.stderr) {
			t.Errorf("%v: status %d, %s", test.args, status, stderr)
		}
	}
	// A folder whose run has not begun.
	if status, stdout, _ := call(t, "", "watch", filepath.Join(two, "a"), "--once"); status != exitOK || !strings.Contains(stdout, "no run is at work") {
		t.Errorf("status %d, %s", status, stdout)
	}
}
