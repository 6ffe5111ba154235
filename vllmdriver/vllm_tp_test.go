//go:build linux

package vllmdriver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// ranksEnv gives each of two ranks a core of its own; "" where this process has
// but one.
func ranksEnv() string {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return ""
	}
	var cores []string
	for core := 0; core < 1024 && len(cores) < 2; core++ {
		if allowed.IsSet(core) {
			cores = append(cores, itoa(core))
		}
	}
	if len(cores) < 2 {
		return ""
	}
	return "VLLM_CPU_OMP_THREADS_BIND=" + strings.Join(cores, "|")
}

// ranksOptions are of a driver on two ranks.
func ranksOptions(t *testing.T) Options {
	t.Helper()
	python, env := vllmPython(t), ranksEnv()
	if env == "" {
		t.Skip("two ranks take two cores")
	}
	return Options{Python: python, Env: []string{env}}
}

// realTPSpec is a small Llama on two ranks.
func realTPSpec(t *testing.T) profile.EngineSpec {
	spec := tinyLlama(t, 256, 1024)
	spec.TP, spec.TPMode = 2, profile.RealTP
	return spec
}

// Two ranks through vLLM's own executor. After kill -9 of the worker, or of one
// of its ranks, the engine is lost, all of it is cleared away, and the next one
// measures.
func TestVLLMRealTP(t *testing.T) {
	d := newDriver(t, ranksOptions(t))
	spec := realTPSpec(t)
	e := bootVLLM(t, d, spec)
	t.Run("measures", func(t *testing.T) { measuresRanks(t, d, spec, e) })
	t.Run("worker killed", func(t *testing.T) { killed(t, d, (*process).pid) })
	bootVLLM(t, d, spec)
	firesShots(t, d, 2)
	t.Run("rank killed", func(t *testing.T) {
		killed(t, d, func(p *process) int { return largest(t, rest(p)) })
	})
}

// measuresRanks: every layer is there without its collective, every collective
// with its size, and waiting apart from the transfer.
func measuresRanks(t *testing.T, d *Driver, spec profile.EngineSpec, e *profile.Engine) {
	if e.Fingerprint["tp_mode"] != "real" || e.Provenance["tp_real"] != 2.0 {
		t.Errorf("fingerprint %v, provenance tp_real %v", e.Fingerprint, e.Provenance["tp_real"])
	}
	if ranks, _ := e.Provenance["ranks"].([]any); len(ranks) != 2 {
		t.Errorf("ranks: found %v, expected what is known of two", e.Provenance["ranks"])
	}
	shots := []profile.Shot{
		{Groups: []profile.Group{{Count: 1, NewTokens: 128, KVHistory: 0}}},
		{Groups: []profile.Group{{Count: 8, NewTokens: 1, KVHistory: 64}}},
		{Groups: []profile.Group{{Count: 8, NewTokens: 1, KVHistory: 64}, {Count: 1, NewTokens: 200, KVHistory: 0}}},
	}
	good := 0
	err := d.Measure(t.Context(), shots, profile.MeasureOptions{Warmup: 2, Iterations: 5}, func(r profile.Result) error {
		if r.Status != profile.OK {
			t.Logf("shot %d: %s: %s", r.Index, r.Status, r.Message) // one that the machine disturbed too much
			return nil
		}
		good++
		checkRanks(t, spec.Model, &shots[r.Index], &r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if good < 2 {
		t.Errorf("found %d good shots of %d", good, len(shots))
	}
}

func checkRanks(t *testing.T, model *perfio.ModelConfig, shot *profile.Shot, r *profile.Result) {
	t.Helper()
	tokens, sequences := shot.Tokens(), shot.Sequences()
	type collective struct {
		kind        string
		rows, bytes int
	}
	reduced := collective{"all_reduce", tokens, 2 * tokens * model.HiddenSize}
	want := map[string]collective{
		"embedding": reduced, "o_proj": reduced, "down_proj": reduced,
		"lm_head": {"all_gather", sequences, 2 * sequences * model.VocabSize / 2},
	}
	accounted := make([]float64, len(r.StepUS))
	for _, c := range r.Collectives {
		w, ok := want[c.Layer]
		if found := (collective{c.Kind, c.Rows, c.Bytes}); !ok || found != w || c.Ranks != 2 || c.Calls != 1 {
			t.Errorf("%s of %s: found %+v, expected %+v", shot.Shape(), c.Layer, c, w)
		}
		delete(want, c.Layer)
		for i := range accounted {
			accounted[i] += c.SamplesUS[i] // checked to be positive by the driver
		}
		t.Logf("%s %s %s of %d bytes: %.1f us, waiting %.1f us", shot.Shape(), c.Layer, c.Kind, c.Bytes, c.SamplesUS, c.WaitUS)
	}
	if len(want) > 0 {
		t.Errorf("%s: no collective of %v", shot.Shape(), want)
	}
	for _, l := range r.Layers {
		for i := range accounted {
			accounted[i] += l.SamplesUS[i] * float64(l.Calls)
		}
	}
	// One block's layers and transfers are a part of the step of two: in most
	// samples, as two ranks that are held up at one moment count twice.
	within := 0
	for i, step := range r.StepUS {
		if accounted[i] < step {
			within++
		}
	}
	if 2*within <= len(r.StepUS) {
		t.Errorf("%s: layers and transfers take %.1f us of steps of %.1f", shot.Shape(), accounted, r.StepUS)
	}
	t.Logf("%s: layers and transfers %.1f us, steps %.1f us", shot.Shape(), accounted, r.StepUS)
}

// held are the names in shared memory that the worker's processes hold by the
// kernel's account, whatever they are called.
func held(p *process) []string {
	var names []string
	for _, pid := range groupMembers(p.pid()) {
		for _, path := range openFiles(pid) {
			if name, ok := strings.CutPrefix(path, shmFolder+"/"); ok && !strings.HasSuffix(name, " (deleted)") {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func wantGone(t *testing.T, names []string) {
	t.Helper()
	if len(names) == 0 {
		t.Error("the ranks held nothing in shared memory: nothing is tested")
	}
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(shmFolder, name)); err == nil {
			t.Errorf("%s/%s is left behind", shmFolder, name)
		}
	}
	if !slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, "cpushm") }) {
		t.Errorf("found %v, expected what the ranks' collectives share among it", names)
	}
	t.Logf("gone from %s: %q", shmFolder, names)
}

// rest are the worker's processes but for itself.
func rest(p *process) []int {
	return slices.DeleteFunc(groupMembers(p.pid()), func(m int) bool { return m == p.pid() })
}

// killed kills one process of the worker's in mid-shot.
func killed(t *testing.T, d *Driver, victim func(*process) int) {
	p := d.client.process
	names := held(p)
	if len(rest(p)) < 2 {
		t.Fatalf("found the processes %v beside the worker, expected two ranks", rest(p))
	}
	pid := victim(p)
	time.AfterFunc(300*time.Millisecond, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	err := d.Measure(t.Context(), decodes(2000), profile.MeasureOptions{Warmup: 1, Iterations: 3, Deadline: 20 * time.Second},
		func(profile.Result) error { return nil })
	t.Logf("%v", lostEngine(t, err).Err)
	nothingLeft(t, p.pid(), p.guard.cmd.Process.Pid, p.tmp, 0)
	wantGone(t, names)
}

// What a worker that is killed while it boots has in shared memory by then goes
// with it.
func TestVLLMRealTPKilledAtBoot(t *testing.T) {
	d := newDriver(t, ranksOptions(t))
	spec, booted := realTPSpec(t), make(chan error, 1)
	go func() {
		_, err := d.Boot(t.Context(), spec)
		booted <- err
	}()
	var p *process
	var names []string
	for !slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, "cpushm") }) {
		select {
		case err := <-booted:
			t.Fatalf("the engine booted before it held shared memory: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		d.mu.Lock()
		if d.client != nil {
			p = d.client.process
		}
		d.mu.Unlock()
		if p != nil {
			names = held(p)
		}
	}
	if err := syscall.Kill(p.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err := <-booted
	var start *StartError
	if !errors.As(err, &start) {
		t.Errorf("found %v, expected a *StartError", err)
	}
	nothingLeft(t, p.pid(), p.guard.cmd.Process.Pid, p.tmp, 5*time.Second)
	wantGone(t, names)
}

// largest is the process with the most memory: of an engine's helpers a rank.
func largest(t *testing.T, pids []int) int {
	t.Helper()
	return slices.MaxFunc(pids, func(a, b int) int { return residentPages(t, a) - residentPages(t, b) })
}

func residentPages(t *testing.T, pid int) (pages int) {
	t.Helper()
	statm, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "statm"))
	if err != nil {
		t.Fatal(err)
	}
	var size int
	if _, err := fmt.Sscan(string(statm), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages
}

// playParentOfRanks is a process that drives two ranks until it is killed.
func playParentOfRanks() {
	fail := func(err error) {
		fmt.Println("error", err)
		os.Exit(1)
	}
	d, err := New(Options{Python: os.Getenv("LAYERPROF_VLLM_PYTHON"), Env: []string{ranksEnv()}})
	if err != nil {
		fail(err)
	}
	var spec profile.EngineSpec
	if err := smallSpec(&spec); err != nil {
		fail(err)
	}
	spec.TP, spec.TPMode = 2, profile.RealTP
	if _, err := d.Boot(context.Background(), spec); err != nil {
		fail(err)
	}
	p := d.client.process
	fmt.Println("ready", p.pid(), p.guard.cmd.Process.Pid, p.tmp, strings.Join(held(p), ","))
	for {
		if err := d.Measure(context.Background(), decodes(100), samples, func(profile.Result) error { return nil }); err != nil {
			fail(err)
		}
	}
}

func TestVLLMRealTPParentKilled(t *testing.T) {
	// A worker and two ranks.
	pid, guard, tmp, names := killParent(t, "parent of ranks", 3, []string{"LAYERPROF_VLLM_PYTHON=" + ranksOptions(t).Python})
	began := time.Now()
	nothingLeft(t, pid, guard, tmp, 10*time.Second)
	wantGone(t, strings.Split(names, ","))
	t.Logf("nothing left %v after the parent was killed", time.Since(began).Round(10*time.Millisecond))
}
