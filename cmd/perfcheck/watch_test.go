//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
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

// heldRun starts a replay of a computed bundle, which stands still, stopped by a
// signal, once ready says that it is far enough. A machine that is too slow to hold
// it before it ends gets a slower one.
func heldRun(t *testing.T, program, faults string, ready func(*watch.Status) bool) (cmd *exec.Cmd, root string) {
	t.Helper()
	from := t.TempDir()
	if out, err := exec.Command(program, sweep(from, "--driver", "roofline")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for delay := 5; ; delay *= 4 {
		root = t.TempDir()
		cmd = exec.Command(program, sweep(root, "--driver", fmt.Sprintf("replay:%s,delay_ms=%d%s", filepath.Join(from, sweepDir), delay, faults))...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // it may have ended
		for hold(t, cmd) {
			_, err := os.Stat(filepath.Join(root, sweepDir, profile.JournalDir, "shots.jsonl"))
			if err == nil {
				status, err := watch.New(filepath.Join(root, sweepDir)).Poll()
				if err != nil {
					t.Fatal(err)
				}
				if ready(status) {
					return cmd, root
				}
			} else if !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			goOn(t, cmd)
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// hold stops the process, and says whether it is not at its end instead.
func hold(t *testing.T, cmd *exec.Cmd) bool {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return false
	}
	for {
		var status syscall.WaitStatus
		switch _, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil); {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			t.Fatal(err)
		default:
			return status.Stopped()
		}
	}
}

func goOn(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// shots are those of a run that are done.
func shots(s *watch.Status) (n int) {
	for _, p := range s.Parts {
		n += p.Done
	}
	return n
}

// begun: there is something to see of a run, and more to come.
func begun(s *watch.Status) bool { return shots(s) > 20 && s.State == watch.Running }

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
	run, root := heldRun(t, profileProgram, ",noise=0.01,drift=0.03,fail=0.01,seed=3", begun)
	if s := once(t, perfcheck, root); s.State != watch.Running || s.PID != run.Process.Pid || len(s.Parts) == 0 || s.Parts[0].Total == 0 {
		t.Errorf("a running one: %+v", s)
	}
	watching, first := watchLines(t, perfcheck, root, 2)
	goOn(t, run)
	rest, err := watching()
	if err != nil {
		t.Errorf("%v: %s", err, rest)
	}
	out := first + rest
	if err := run.Wait(); err != nil {
		t.Fatalf("the run itself: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := lines[len(lines)-1]
	if !regexp.MustCompile(`^ended after [0-9a-z]+: complete; all (\d+)/(\d+); `).MatchString(last) || strings.ContainsAny(out, "\x1b\r") || len(lines) < 3 {
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
	run, root := heldRun(t, profileProgram, "", begun)
	watching, first := watchLines(t, perfcheck, filepath.Join(root, sweepDir), 1)
	if err := run.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = run.Wait() // killed
	var exit *exec.ExitError
	if rest, err := watching(); !errors.As(err, &exit) || exit.ExitCode() != exitProblems || !strings.Contains(rest, "went without a word") {
		t.Errorf("%v: %s%s", err, first, rest)
	}
	before := once(t, perfcheck, root)
	if out, err := exec.Command(profileProgram, "resume", filepath.Join(root, sweepDir)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	after := once(t, perfcheck, root)
	if after.State != watch.Ended || after.Outcome != profile.EndComplete || shots(&before) < 20 || shots(&after) <= shots(&before) {
		t.Errorf("%d shots before, %d after: %s %s", shots(&before), shots(&after), after.State, after.Outcome)
	}
}

// watchLines starts a watch that prints, and reads its first lines; rest waits for
// its end and gives the others.
func watchLines(t *testing.T, program, path string, lines int) (rest func() (string, error), first string) {
	t.Helper()
	cmd := exec.Command(program, "watch", path, "--every", "50ms")
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	for range lines {
		line, err := out.ReadString('\n')
		if first += line; err != nil {
			t.Fatalf("%v: %s", err, first)
		}
	}
	return func() (string, error) {
		text, err := io.ReadAll(out)
		return string(text), errors.Join(err, cmd.Wait())
	}, first
}

// On a terminal the page replaces itself.
func TestWatchOnATerminal(t *testing.T) {
	profileProgram, perfcheck := programs(t)
	const attention = `tp2  attention    \[=*-+\] `
	run, root := heldRun(t, profileProgram, "", func(s *watch.Status) bool {
		return regexp.MustCompile(attention).MatchString(strings.Join(s.Lines(), "\n")) && s.State == watch.Running && s.ShotsPerSecond > 0
	})
	cmd := exec.Command(perfcheck, "watch", root, "--every", "50ms")
	cmd.Env = append(os.Environ(), "TERM=xterm")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	var screen bytes.Buffer
	for begin := make([]byte, 4096); !regexp.MustCompile(attention).Match(screen.Bytes()); {
		n, err := terminal.Read(begin)
		if screen.Write(begin[:n]); err != nil {
			t.Fatalf("%v: %s", err, &screen)
		}
	}
	goOn(t, run)
	_, _ = screen.ReadFrom(terminal) // ends with an error when the program closes it
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &screen)
	}
	for _, want := range []string{
		`\x1b\[\d+A\x1b\[2K`, `  running for [0-9hms]+ \(process \d+\)`, `tp1  dense        \[=+\] +28/28 +100%`, attention,
		`  shots +[0-9.]+ shots/s, [0-9hms]+ left`, `  anchors +\d+ anchors, now `, `  failures +0 failed`, `  ended after [0-9hms]+: complete`,
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
