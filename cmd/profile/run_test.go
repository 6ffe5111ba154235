package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

const smallDir = "H100/meta-llama/Llama-3.1-8B/bf16"

func TestRunWritesABundle(t *testing.T) {
	out := t.TempDir()
	got := runCommand(t, append([]string{"run", "--driver", "roofline", "--out", out}, smallSweep("--tp", "1,2")...)...)
	if got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	dir := filepath.Join(out, smallDir)
	bundle, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(bundle.TPs) != 2 || !bundle.Meta.Synthetic() || bundle.Meta.SMCount() != 132 || bundle.Meta.SkewStatistic() != perfio.SkewMean {
		t.Errorf("%d degrees, synthetic %v, %d SMs, %s", len(bundle.TPs), bundle.Meta.Synthetic(), bundle.Meta.SMCount(), bundle.Meta.SkewStatistic())
	}
	if !strings.Contains(got.stdout, dir) {
		t.Errorf("standard output does not name the bundle: %q", got.stdout)
	}
	// Layers that are tp_stable are the same in both folders.
	rows := func(tp int) (n int) {
		for _, row := range bundle.TP(tp).Dense {
			if row.Layer == "layernorm" {
				n++
			}
		}
		return n
	}
	if rows(1) == 0 || rows(1) != rows(2) {
		t.Errorf("layernorm has %d rows at tp1, %d at tp2", rows(1), rows(2))
	}
}

func TestRunUsage(t *testing.T) {
	for _, test := range []struct {
		args, stderr string
		status       int
	}{
		{"run", "model, hardware and driver", exitUsage},
		{"run --model meta-llama/Llama-3.1-8B --hardware H100 --driver nonsense", "nonsense", exitUsage},
		{"run --model meta-llama/Llama-3.1-8B --hardware H100 --driver roofline --log-format xml", "log-format", exitUsage},
		{"run --model meta-llama/Llama-3.1-8B --hardware H100 --driver replay:/does/not/exist", "/does/not/exist", exitFailure},
		{"resume /does/not/exist", "/does/not/exist", exitFailure},
		{"resume", "arg", exitUsage},
	} {
		args := append(strings.Fields(test.args), "--out", t.TempDir())
		if got := runCommand(t, args...); got.status != test.status || !strings.Contains(got.stderr, test.stderr) {
			t.Errorf("profile %s: status %d and %q, expected %d and %q", test.args, got.status, got.stderr, test.status, test.stderr)
		}
	}
}

// Each way of ending early leaves a bundle that resume completes.
func TestSignalsAndBudget(t *testing.T) {
	source := smallBundle(t)
	whole := t.TempDir()
	if got := runCommand(t, append([]string{"run", "--driver", "replay:" + source, "--out", whole}, smallSweep()...)...); got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	want := bundleFiles(t, filepath.Join(whole, smallDir))
	for _, test := range []struct {
		name   string
		signal os.Signal
		budget string
		stderr string
	}{
		{"SIGINT", os.Interrupt, "0", "interrupt: the run ends"},
		{"SIGTERM", syscall.SIGTERM, "0", "terminated: the run ends"},
		{"SIGUSR1", syscall.SIGUSR1, "0", "the run ends"},
		{"budget", nil, "300ms", "the budget is spent"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			out := t.TempDir()
			cmd, stdout, stderr := profileProcess(append([]string{"run", "--out", out, "--budget", test.budget,
				"--driver", "replay:" + source + ",delay_ms=5"}, smallSweep()...)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if test.signal != nil {
				waitForJournal(t, filepath.Join(out, smallDir), 20)
				if err := cmd.Process.Signal(test.signal); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait() // its status is looked at below
			if status := cmd.ProcessState.ExitCode(); status != exitPartial {
				t.Fatalf("status %d, expected %d: %s", status, exitPartial, stderr)
			}
			for _, text := range []string{test.stderr, "to go on: profile resume " + filepath.Join(out, smallDir)} {
				if !strings.Contains(stderr.String(), text) {
					t.Errorf("standard error lacks %q: %s", text, stderr)
				}
			}
			if !strings.Contains(stdout.String(), "shots measured") {
				t.Errorf("standard output %q", stdout)
			}
			got := runCommand(t, "resume", filepath.Join(out, smallDir), "--driver", "replay:"+source)
			if got.status != exitOK {
				t.Fatalf("resume: status %d: %s", got.status, got.stderr)
			}
			sameFiles(t, bundleFiles(t, filepath.Join(out, smallDir)), want)
		})
	}
}

// endlessShot is the example worker, whose shots do not end; a file says that one
// has begun.
const endlessShot = `
import sys, time
sys.path.insert(0, sys.argv[1])
import worker

def measure_shot(self, shot, request):
    with open(sys.argv[2], "w") as f:
        f.write("begun\n")
    while True:
        time.sleep(1)

worker.Worker.measure_shot = measure_shot
sys.exit(worker.main(worker.Worker()))
`

// A second signal leaves at once, in the middle of a shot.
func TestSecondSignal(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not there")
	}
	workers, err := filepath.Abs("../../examples/worker")
	if err != nil {
		t.Fatal(err)
	}
	begun, script := filepath.Join(t.TempDir(), "begun"), writeFile(t, "endless.py", endlessShot)
	driver := strings.Join([]string{"exec:" + python, script, workers, begun}, " ")
	cmd, _, _ := profileProcess(append([]string{"run", "--out", t.TempDir(), "--driver", driver}, smallSweep()...)...)
	cmd.Stderr = nil
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	scanner := bufio.NewScanner(pipe)
	until := func(text string) {
		for scanner.Scan() {
			log.WriteString(scanner.Text() + "\n")
			if strings.Contains(scanner.Text(), text) {
				return
			}
		}
		t.Errorf("standard error lacks %q", text)
	}
	waitForFile(t, begun, 1)
	for _, answer := range []string{"a second signal leaves at once", "left at once"} {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		until(answer)
	}
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != exitPartial || t.Failed() {
		t.Errorf("status %d: %s", status, log.String())
	}
}

// waitForJournal waits until the journal has some lines.
func waitForJournal(t *testing.T, dir string, lines int) {
	t.Helper()
	waitForFile(t, filepath.Join(dir, profile.JournalDir, "shots.jsonl"), lines)
}

// lineCount is 0 for a file that is not there.
func lineCount(path string) int {
	text, _ := os.ReadFile(path)
	return bytes.Count(text, []byte("\n"))
}

func waitForFile(t *testing.T, path string, lines int) {
	t.Helper()
	for range 2000 {
		if lineCount(path) >= lines {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the journal does not grow")
}

func TestFailedShotsAndEnvironment(t *testing.T) {
	source, out := smallBundle(t), t.TempDir()
	dir := filepath.Join(out, smallDir)
	got := runCommand(t, append([]string{"run", "--out", out, "--driver", "replay:" + source + ",fail=0.2,seed=3"}, smallSweep()...)...)
	if got.status != exitPartial || !strings.Contains(got.stderr, "failed: tp1 attention") || !strings.Contains(got.stderr, "injected failure of attempt 2") {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	// The same source is the same environment, whatever it injects.
	if got := runCommand(t, "resume", dir, "--driver", "replay:"+source); got.status != exitOK {
		t.Fatalf("resume: status %d: %s", got.status, got.stderr)
	}
	// Noise changes values: another environment.
	got = runCommand(t, "resume", dir, "--driver", "replay:"+source+",noise=0.1,seed=1")
	if got.status != exitDrift || !strings.Contains(got.stderr, `noise: was "0", is "0.1"`) {
		t.Errorf("resume: status %d: %s", got.status, got.stderr)
	}
	// What resume was given, in vain or not, is not the run's own.
	flags, err := savedFlags(dir)
	if err != nil || flags["driver"] != "replay:"+source+",fail=0.2,seed=3" {
		t.Errorf("saved flags %v, %v", flags, err)
	}
	got = runCommand(t, "resume", dir, "--driver", "replay:"+source+",noise=0.1,seed=1", "--on-environment-change", "keep")
	if got.status != exitOK || !strings.Contains(got.stdout, "0 shots measured") {
		t.Errorf("resume: status %d: %s%s", got.status, got.stdout, got.stderr)
	}
}

// A bundle without a journal goes on from its tables.
func TestResumeWithoutJournal(t *testing.T) {
	source := smallBundle(t)
	dir := filepath.Join(t.TempDir(), smallDir)
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	want := bundleFiles(t, source)
	attention := filepath.Join(dir, "tp1", "attention.csv")
	lines := strings.SplitAfter(want["tp1/attention.csv"], "\n")
	for _, err := range []error{
		os.RemoveAll(filepath.Join(dir, profile.JournalDir)),
		os.WriteFile(attention, []byte(strings.Join(lines[:len(lines)/2], "")), 0o644),
		os.Remove(filepath.Join(dir, "tp1", "dense.csv")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := runCommand(t, "resume", dir); got.status != exitUsage || !strings.Contains(got.stderr, "driver") {
		t.Errorf("without a driver: status %d: %s", got.status, got.stderr)
	}
	got := runCommand(t, "resume", dir, "--driver", "roofline")
	if got.status != exitOK || !strings.Contains(got.stderr, "has no journal") {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	for name, text := range bundleFiles(t, dir) {
		if name != "meta.yaml" && text != want[name] {
			t.Errorf("%s differs\n%s", name, firstDifference(text, want[name]))
		}
	}
}

// sumsBundle is a bundle as LLMServingSim's profiler leaves it: no journal, and
// skew.csv holds sums of three runs, which meta.yaml does not say.
func sumsBundle(t *testing.T, tp string) string {
	t.Helper()
	out := t.TempDir()
	if got := runCommand(t, append([]string{"run", "--driver", "roofline", "--out", out}, smallSweep("--tp", tp, "--attention-max-kv", "2048")...)...); got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	b, err := perfio.OpenBundle(filepath.Join(out, smallDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"driver", "driver_version", "skew_statistic"} {
		b.Meta.Delete(key)
	}
	for i := range b.TPs {
		for j := range b.TPs[i].Skew {
			row := &b.TPs[i].Skew[j]
			row.TMeanUS, row.TMaxUS, row.TSkewUS = 3*row.TMeanUS, 3*row.TMaxUS, 3*row.TSkewUS
		}
	}
	dir := filepath.Join(t.TempDir(), smallDir)
	if err := perfio.WriteBundle(dir, b); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A bundle of sums stays one, whatever degrees and however often it is resumed.
func TestResumeSums(t *testing.T) {
	whole := t.TempDir()
	if got := runCommand(t, append([]string{"run", "--driver", "roofline", "--out", whole}, smallSweep("--tp", "1,2", "--attention-max-kv", "2048", "--skew-kvs-factor", "1.3")...)...); got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	want, err := perfio.OpenBundle(filepath.Join(whole, smallDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, tp string // of the bundle that is resumed
		runs     [][]string
	}{
		{"both degrees at once", "1,2", [][]string{{}}},
		{"one after the other, and again", "1,2", [][]string{{"--tp", "1"}, {"--tp", "2", "--iterations", "5"}, {}}},
		{"a degree without rows", "1", [][]string{{"--tp", "2"}, {"--tp", "1"}}},
		{"first without skew", "1,2", [][]string{{"--only", "dense"}, {}}},
		{"shards", "1,2", [][]string{{"--shard", "0/2"}, {"--shard", "1/2"}}},
		{"devices", "1,2", [][]string{{"--gpus", "0,1"}, {"--gpus", "0,1,2"}}},
	} {
		dir := sumsBundle(t, test.tp)
		for _, run := range test.runs {
			args := append([]string{"resume", dir, "--driver", "roofline", "--skew-kvs-factor", "1.3", "--only", "skew"}, run...)
			if got := runCommand(t, args...); got.status != exitOK {
				t.Fatalf("%s: status %d: %s", test.name, got.status, got.stderr)
			}
		}
		if test.name == "shards" {
			mergedFiles(t, dir)
		}
		b, err := perfio.OpenBundle(dir)
		if err != nil {
			t.Fatal(err)
		}
		if said := b.Meta.Text("skew_statistic"); said != perfio.SkewSum || b.Meta.SkewRuns() != 3 {
			t.Errorf("%s: meta.yaml says %q of %d runs", test.name, said, b.Meta.SkewRuns())
		}
		for i := range want.TPs {
			sums := make(map[string]perfio.SkewRow)
			for _, row := range b.TPs[i].Skew {
				sums[fmt.Sprint(row.N, row.NB, row.Skew, row.PC, row.KP, row.KVS)] = row
			}
			off, absent := 0, 0
			for _, row := range want.TPs[i].Skew {
				sum, ok := sums[fmt.Sprint(row.N, row.NB, row.Skew, row.PC, row.KP, row.KVS)]
				switch {
				case !ok:
					absent++
				case math.Abs(sum.TMeanUS-3*row.TMeanUS) > 0.003 || math.Abs(sum.TMaxUS-3*row.TMaxUS) > 0.003 || math.Abs(sum.TSkewUS-3*row.TSkewUS) > 0.003:
					off++
				}
			}
			if off > 0 || absent > 0 {
				t.Errorf("%s: tp%d: of %d rows %d are no sums of three, %d are absent", test.name, want.TPs[i].Degree, len(want.TPs[i].Skew), off, absent)
			}
		}
	}
}

// Where meta.yaml and the tables do not say the same, or nothing, new rows could
// become anything: none is written.
func TestResumeUnknownSums(t *testing.T) {
	for _, test := range []struct {
		line, by, want string
	}{
		{"measurement_iterations: 3", "measurement_iterations: 5", "skew.csv: tp1: found times 3 times those of attention.csv, expected 5"},
		{"measurement_iterations: 3", "", ""}, // the tables say it
	} {
		dir := sumsBundle(t, "1")
		meta := filepath.Join(dir, perfio.MetaFile)
		text, err := os.ReadFile(meta)
		if err != nil || !strings.Contains(string(text), test.line) {
			t.Fatalf("%v, no %q in %s", err, test.line, text)
		}
		if err := os.WriteFile(meta, []byte(strings.Replace(string(text), test.line, test.by, 1)), 0o666); err != nil {
			t.Fatal(err)
		}
		before := bundleFiles(t, dir)
		got := runCommand(t, "resume", dir, "--driver", "roofline", "--only", "skew", "--skew-kvs-factor", "1.3")
		if test.want == "" {
			b, err := perfio.OpenBundle(dir)
			if err != nil || got.status != exitOK || b.Meta.SkewRuns() != 3 {
				t.Errorf("%q: status %d, %v: %s", test.by, got.status, err, got.stderr)
			}
			continue
		}
		if got.status != exitFailure || !strings.Contains(got.stderr, test.want) {
			t.Errorf("%q: status %d: %s", test.by, got.status, got.stderr)
		}
		sameFiles(t, bundleFiles(t, dir), before)
	}
}

func TestJSONLog(t *testing.T) {
	out := t.TempDir()
	got := runCommand(t, append([]string{"run", "--driver", "roofline", "--out", out, "--log-format", "json"}, smallSweep("--only", "dense")...)...)
	if got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	seen := make(map[profile.EventKind]int)
	last := 0
	for _, line := range strings.Split(strings.TrimSpace(got.stderr), "\n") {
		var e jsonEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339Nano, e.Time); err != nil {
			t.Error(err)
		}
		seen[e.Event]++
		if e.Event == profile.EventShot {
			if *e.Done != last+1 || *e.Total < *e.Done || e.Category != profile.Dense || e.Shape == "" {
				t.Fatalf("%s after %d shots", line, last)
			}
			last = *e.Done
		}
	}
	if seen[profile.EventBooted] != 1 || seen[profile.EventShot] != 28 || seen[profile.EventCategory] != 1 {
		t.Errorf("events %v", seen)
	}
}

func TestSecretsAreNotSaved(t *testing.T) {
	got := publicPairs("VLLM_USE_V1=1,HF_TOKEN=hf_abc,my_api_key=x,A=b")
	if got != "VLLM_USE_V1=1,A=b" {
		t.Errorf("saved %q", got)
	}
}

// A device that drifts while shots fail: blocks are cut where an engine is
// lost, so that shots which were measured again stand beside new ones. The run
// is complete all the same.
func TestDriftBesideFailures(t *testing.T) {
	source := smallBundle(t)
	for seed := range 4 {
		out := t.TempDir()
		got := runCommand(t, append([]string{"run", "--out", out, "--retries", "6", "--iterations", "2",
			"--driver", fmt.Sprintf("replay:%s,noise=0.02,drift=0.03,fail=0.02,seed=%d", source, seed)}, smallSweep("--skip-skew")...)...)
		if got.status != exitOK {
			t.Errorf("seed %d: status %d: %s", seed, got.status, got.stderr)
		}
	}
}
