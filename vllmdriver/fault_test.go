package vllmdriver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/layerprof/layerprof/profile"
)

func itoa(n int) string { return strconv.Itoa(n) }

// roleVariable makes the test binary play a part of its own: see TestMain.
const roleVariable = "LAYERPROF_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "parent":
		playParent()
	case "parent of ranks":
		playParentOfRanks()
	case "player":
		playWorker()
	}
}

func TestMeasure(t *testing.T) {
	d := newDriver(t, Options{Command: exampleWorker(t)})
	description, err := d.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := profile.Description{Name: "exec", Version: "example 1", Origin: profile.Synthetic, ShareRepeats: true, BatchShots: 16}
	if description != want {
		t.Errorf("Describe: found %+v, expected %+v", description, want)
	}
	e := boot(t, d)
	if e.Limits.MaxNumBatchedTokens != 512 || e.Limits.MaxNumSeqs != 256 || e.Limits.BlockSize != 16 {
		t.Errorf("limits: found %+v, expected the logical 512, 256 and blocks of 16", e.Limits)
	}
	measureAll(t, d, decodes(40))
	// Each boot has a worker of its own.
	first := d.client.process.pid()
	boot(t, d)
	if d.client.process.pid() == first {
		t.Error("the second boot has the first one's process")
	}
	measureAll(t, d, decodes(3))
}

func TestRealTPNeedsTheCapability(t *testing.T) {
	d := newDriver(t, Options{Command: exampleWorker(t)})
	var spec profile.EngineSpec
	if err := smallSpec(&spec); err != nil {
		t.Fatal(err)
	}
	spec.TP, spec.TPMode = 2, profile.RealTP
	if _, err := d.Boot(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "expected tp_real among them") {
		t.Errorf("found %v, expected an error that names the capability", err)
	}
	spec.TPMode = "both"
	if _, err := d.Boot(t.Context(), spec); err == nil || !strings.Contains(err.Error(), `found "both"`) {
		t.Errorf("found %v, expected an error that names the mode", err)
	}
	op, err := newBootRequest(profile.EngineSpec{Model: spec.Model, Architecture: spec.Architecture, TP: 2, TPMode: profile.RealTP,
		MaxNumBatchedTokens: 8, MaxNumSeqs: 8})
	if err != nil || op.TPMode != profile.RealTP || op.Config["vocab_size"] != spec.Model.Document["vocab_size"] {
		t.Errorf("%v: a vocabulary of %v for an engine that divides by itself, expected %v", err, op.Config["vocab_size"], spec.Model.Document["vocab_size"])
	}
}

func TestBeyondLimitsIsNotFired(t *testing.T) {
	d := newDriver(t, Options{Command: exampleWorker(t)})
	boot(t, d)
	group := func(count, tokens, history int) profile.Shot {
		return profile.Shot{Groups: []profile.Group{{Count: count, NewTokens: tokens, KVHistory: history}}}
	}
	shots := []profile.Shot{group(1, 769, 0), group(257, 1, 1), group(1, 1, 1023), group(1, 0, 16), {}, group(1, 768, 0), group(1, 1, 1022)}
	found := make(map[int]profile.Status)
	sent := d.client.lastID
	for _, call := range [][]profile.Shot{shots[:5], shots[5:]} {
		base := len(found)
		if err := d.Measure(t.Context(), call, samples, func(r profile.Result) error {
			found[base+r.Index] = r.Status
			if r.Status != profile.OK && r.Message == "" {
				t.Errorf("shot %d: no message", r.Index)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if base == 0 && d.client.lastID != sent {
			t.Error("a request was sent for shots that are all beyond the limits")
		}
	}
	for i := range shots {
		want := profile.Infeasible
		if i >= 5 {
			want = profile.OK
		}
		if found[i] != want {
			t.Errorf("shot %d (%s): found %s, expected %s", i, shots[i].Shape(), found[i], want)
		}
	}
}

func TestKilledInMidShot(t *testing.T) {
	d := newDriver(t, Options{Command: shell(t, "echo these are the last words;")})
	boot(t, d)
	p := d.client.process
	results := 0
	err := d.Measure(t.Context(), decodes(5000), samples, func(profile.Result) error {
		if results++; results == 3 {
			return syscall.Kill(p.pid(), syscall.SIGKILL)
		}
		return nil
	})
	lost := lostEngine(t, err)
	// The example worker says which shot it begins; it may die between two.
	if results < 3 || results >= 5000 || lost.Index != results && lost.Index != -1 {
		t.Errorf("found %d results and shot %d to blame", results, lost.Index)
	}
	if !strings.Contains(err.Error(), "signal: killed") || !strings.Contains(lost.LastWords, "these are the last words") {
		t.Errorf("found %q with the last words %q", err, lost.LastWords)
	}
	nothingLeft(t, p.pid(), p.guard.cmd.Process.Pid, p.tmp, 0)
	if err := d.Measure(t.Context(), decodes(1), samples, func(profile.Result) error { return nil }); err == nil {
		t.Error("a Measure without an engine succeeds")
	}
	boot(t, d)
	measureAll(t, d, decodes(20))
}

func TestHang(t *testing.T) {
	d := newDriver(t, Options{Command: exampleWorker(t)})
	boot(t, d)
	p := d.client.process
	if err := syscall.Kill(p.pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	options := samples
	options.Deadline = 100 * time.Millisecond
	err := d.Measure(t.Context(), decodes(1), options, func(profile.Result) error { return nil })
	lost := lostEngine(t, err)
	if !errors.Is(err, context.DeadlineExceeded) || lost.Index != 0 {
		t.Errorf("found %v for shot %d, expected a deadline that passed for shot 0", err, lost.Index)
	}
	nothingLeft(t, p.pid(), p.guard.cmd.Process.Pid, p.tmp, 0)
	boot(t, d)
	measureAll(t, d, decodes(20))
}

func TestCancelAndYieldError(t *testing.T) {
	d := newDriver(t, Options{Command: exampleWorker(t)})
	boot(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	err := d.Measure(ctx, decodes(5000), samples, func(profile.Result) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: found %v", err)
	}
	boot(t, d)
	own := errors.New("the caller's own")
	if err := d.Measure(t.Context(), decodes(5000), samples, func(profile.Result) error { return own }); !errors.Is(err, own) {
		t.Errorf("yield: found %v", err)
	}
	boot(t, d)
	closing := make(chan error, 1)
	err = d.Measure(t.Context(), decodes(5000), samples, func(r profile.Result) error {
		if r.Index == 0 {
			go func() { closing <- d.Close() }()
		}
		return nil
	})
	if !errors.Is(err, errClosed) {
		t.Errorf("closed in mid-shot: found %v", err)
	}
	if err := <-closing; err != nil {
		t.Error(err)
	}
	if _, err := d.Describe(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("Describe after Close: found %v", err)
	}
}

func TestNoiseOnStandardOutput(t *testing.T) {
	d := newDriver(t, Options{Command: shell(t, `echo '{"id":1,"result":{}}'; (while :; do echo "INFO noise {"; sleep 0.01; done) &`)})
	boot(t, d)
	p := d.client.process
	measureAll(t, d, decodes(200))
	if !strings.Contains(d.LastWords(), "INFO noise {") {
		t.Errorf("the log's tail is %q", d.LastWords())
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, p.pid(), p.guard.cmd.Process.Pid, p.tmp, 0) // the noisy child, too
}

func TestBrokenWorkers(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"noise among the replies", `echo "a library prints" >&4;`, `protocol: found "a library prints", expected a JSON object`},
		{"replies cut off", `printf '{"id":1,"res' >&4; echo last words; exit 3;`, "exit status 3"},
		{"ends at once", `echo last words; exit 7;`, "exit status 7"},
		{"another's id", `echo '{"id":99,"result":{}}' >&4;`, "a reply to request 99"},
		{"both kinds", `echo '{"id":1,"result":{},"error":{"code":"boot"}}' >&4;`, "found 2 of result"},
		{"another version", `echo '{"id":1,"result":{"protocol":2,"name":"x","origin":"measured"}}' >&4;`, "protocol: found 2, expected 1"},
		{"no origin", `echo '{"id":1,"result":{"protocol":1,"name":"x"}}' >&4;`, "origin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDriver(t, Options{Command: shell(t, c.script)})
			_, err := d.Describe(t.Context())
			var start *StartError
			if !errors.As(err, &start) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("found %v, expected a *StartError with %q", err, c.want)
			}
			if strings.Contains(c.script, "last words") && start != nil && start.LastWords != "last words" {
				t.Errorf("last words: found %q", start.LastWords)
			}
		})
	}
}

func TestPythonMissing(t *testing.T) {
	if _, err := New(Options{Python: "no-such-python"}); err == nil || !strings.Contains(err.Error(), "--python") {
		t.Errorf("found %v, expected advice about --python", err)
	}
	d := newDriver(t, Options{Command: []string{"/no/such/worker"}})
	if _, err := d.Describe(t.Context()); err == nil || !strings.Contains(err.Error(), "/no/such/worker: no such program") {
		t.Errorf("found %v", err)
	}
}

// pythonWithout is an interpreter that has no vLLM.
func pythonWithout(t *testing.T) string {
	t.Helper()
	python := exampleWorker(t)[0]
	if exec.Command(python, "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('vllm') is not None)").Run() != nil {
		t.Skip("this Python has a vLLM")
	}
	return python
}

func TestVLLMMissing(t *testing.T) {
	d := newDriver(t, Options{Python: pythonWithout(t)})
	_, err := d.Describe(t.Context())
	var refusal *WorkerError
	if !errors.As(err, &refusal) || refusal.Code != "missing" || !strings.Contains(err.Error(), "--python") {
		t.Errorf("found %v, expected the error missing and advice about --python", err)
	}
}

func TestVLLMImportBroken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vllm")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"__init__.py": "import sys\nprint('loading', file=sys.stderr)\nraise RuntimeError('operator torchvision::nms does not exist')\n",
		"_version.py": "__version__ = '0.0.1'\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	d := newDriver(t, Options{Python: pythonWithout(t), Env: []string{"PYTHONPATH=" + filepath.Dir(dir)}})
	_, err := d.Boot(t.Context(), smallEngine(t))
	var refusal *WorkerError
	if !errors.As(err, &refusal) || refusal.Code != "import" || !strings.Contains(err.Error(), "torchvision::nms") {
		t.Errorf("found %v, expected the error import with its cause", err)
	}
}

// playParent boots an engine, says what it started, and measures until it is
// killed.
func playParent() {
	options := Options{Command: os.Args[1:]}
	if len(os.Args) == 1 {
		options.Python = os.Getenv("LAYERPROF_VLLM_PYTHON")
	}
	d, err := New(options)
	if err == nil {
		var spec profile.EngineSpec
		if err = smallSpec(&spec); err == nil {
			_, err = d.Boot(context.Background(), spec)
		}
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	p := d.client.process
	fmt.Println("ready", p.pid(), p.guard.cmd.Process.Pid, p.tmp)
	for {
		if err := d.Measure(context.Background(), decodes(100), samples, func(profile.Result) error { return nil }); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
}

// heldSegment is a worker that holds a segment of shared memory named as vLLM's
// ranks name theirs.
func heldSegment(t *testing.T) (command []string, segment string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("looks at /proc and /dev/shm")
	}
	segment = filepath.Join(shmFolder, fmt.Sprintf("layerprof-test-%d-%s-tp:0-[0-1]-cpushm_0", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-")))
	t.Cleanup(func() { _ = os.Remove(segment) })
	return shell(t, "exec 9>'"+segment+"';"), segment
}

func TestSharedMemoryIsSwept(t *testing.T) {
	for _, end := range []string{"killed", "stopped"} {
		t.Run(end, func(t *testing.T) {
			command, segment := heldSegment(t)
			d := newDriver(t, Options{Command: command})
			boot(t, d)
			if _, err := os.Stat(segment); err != nil {
				t.Fatal(err)
			}
			p := d.client.process
			if end == "killed" {
				if err := syscall.Kill(p.pid(), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				<-p.done
			} else if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(segment); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left behind: %v", segment, err)
			}
		})
	}
}

func TestParentKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("looks at /proc")
	}
	holding, segment := heldSegment(t)
	for _, c := range []struct {
		name    string
		command []string
	}{
		{"worker alone", exampleWorker(t)},
		// It outlives the worker and hears of no pipe's end.
		{"with a child", shell(t, "sleep 300 &")},
		{"with shared memory", holding},
	} {
		t.Run(c.name, func(t *testing.T) {
			pid, guard, tmp, _ := killParent(t, "parent", 1, nil, c.command...)
			nothingLeft(t, pid, guard, tmp, 5*time.Second)
			if _, err := os.Stat(segment); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left behind: %v", segment, err)
			}
		})
	}
}

// killParent starts this program in the role of a worker's parent, kills it -9
// once the worker has so many processes, and says what the parent told of it.
func killParent(t *testing.T, role string, processes int, env []string, args ...string) (pid, guard int, tmp, rest string) {
	t.Helper()
	parent := exec.Command(os.Args[0], args...)
	parent.Env = append(append(os.Environ(), roleVariable+"="+role), env...)
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = parent.Process.Kill(); _ = parent.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if n, err := fmt.Sscanf(line, "ready %d %d %s %s", &pid, &guard, &tmp, &rest); n < 3 {
		t.Fatalf("%q: %v", line, err)
	}
	if members := groupMembers(pid); len(members) < processes || !isGuard(guard) {
		t.Fatalf("found the processes %v and a guard: %v, expected %d of worker %d", members, isGuard(guard), processes, pid)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	return pid, guard, tmp, rest
}

func TestBootsLeaveNothing(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("looks at /proc")
	}
	boots := 20
	if os.Getenv("LAYERPROF_LONG") != "" {
		boots = 200
	}
	t.Setenv("TMPDIR", t.TempDir())
	d := newDriver(t, Options{Command: exampleWorker(t)})
	state := func() (descriptors, children, goroutines, folders int, heap uint64) {
		for _, f := range []struct {
			dir string
			n   *int
		}{{"/proc/self/fd", &descriptors}, {os.Getenv("TMPDIR"), &folders}} {
			entries, err := os.ReadDir(f.dir)
			if err != nil {
				t.Fatal(err)
			}
			*f.n = len(entries)
		}
		tasks, err := filepath.Glob("/proc/self/task/*/children")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			if text, err := os.ReadFile(task); err == nil {
				children += len(strings.Fields(string(text)))
			}
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return descriptors, children, runtime.NumGoroutine(), folders, m.HeapAlloc
	}
	once := func() {
		boot(t, d)
		measureAll(t, d, decodes(2))
	}
	once()
	once()
	fd0, ch0, go0, tmp0, heap0 := state()
	for range boots {
		once()
	}
	fd1, ch1, go1, tmp1, heap1 := state()
	t.Logf("%d boots: descriptors %d to %d, children %d to %d, goroutines %d to %d, folders %d to %d, heap %d to %d bytes",
		boots, fd0, fd1, ch0, ch1, go0, go1, tmp0, tmp1, heap0, heap1)
	// The log's reader and the like may end a moment later: a few, not a few a boot.
	if fd1 > fd0+2 || ch1 > ch0 || go1 > go0+3 || tmp1 > tmp0 || heap1 > heap0+2<<20 {
		t.Error("something is left of each boot")
	}
}
