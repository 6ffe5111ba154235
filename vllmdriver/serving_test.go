package vllmdriver

import (
	"encoding/json"
	"errors"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// servingWorker is the command of the example worker that serves.
func servingWorker(t testing.TB) []string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 for the example worker")
	}
	path, err := filepath.Abs("../examples/worker/serving.py")
	if err != nil {
		t.Fatal(err)
	}
	return []string{python, path}
}

func servingSpec(t testing.TB, mode string) profile.ServingSpec {
	spec := smallEngine(t)
	return profile.ServingSpec{EngineSpec: spec, Mode: mode}
}

func someRequests() profile.Workload {
	return profile.Workload{Name: "some", Requests: []profile.WorkloadRequest{
		{PromptTokens: 600, OutputTokens: 5}, {PromptTokens: 20, OutputTokens: 9, ArrivalUS: 1000}, {PromptTokens: 1, OutputTokens: 1, ArrivalUS: 1e6},
	}}
}

func TestServe(t *testing.T) {
	d := newDriver(t, Options{Command: servingWorker(t)})
	modes, err := d.StepModes(t.Context())
	if err != nil || len(modes) != 3 {
		t.Fatalf("StepModes: %v, %v", modes, err)
	}
	for _, mode := range perfio.StepModes() {
		e, err := d.BootServing(t.Context(), servingSpec(t, mode))
		if err != nil {
			t.Fatal(err)
		}
		if e.Layers != 2 || e.CPU != "example host" || e.Limits.MaxNumBatchedTokens != 512 || e.AsyncScheduling != strings.HasSuffix(mode, "async") ||
			(len(e.CaptureSizes) == 0) != strings.HasPrefix(mode, "eager") {
			t.Errorf("%s: found %+v", mode, e)
		}
		served, err := d.Serve(t.Context(), someRequests(), nil)
		if err != nil {
			t.Fatal(err)
		}
		// The first prompt takes two steps, so five tokens take six; the others 9 and 1.
		tokens := 0
		for i, s := range served.Steps {
			if err := s.Check(); err != nil {
				t.Errorf("%s: step %d: %v", mode, i, err)
			}
			for _, q := range s.Requests {
				tokens += q.NewTokens
			}
		}
		if want := 600 + 4 + 20 + 8 + 1; tokens != want {
			t.Errorf("%s: %d tokens computed, expected %d", mode, tokens, want)
		}
		if len(served.Requests) != 3 {
			t.Fatalf("%s: %d requests", mode, len(served.Requests))
		}
		for _, q := range served.Requests {
			if want := someRequests().Requests[q.Number].OutputTokens; q.OutputTokens != want || math.IsNaN(q.DoneUS) || !(q.FirstTokenUS > q.ArrivalUS) {
				t.Errorf("%s: %+v", mode, q)
			}
		}
		// Measuring needs another boot.
		if err := d.Measure(t.Context(), decodes(1), samples, func(profile.Result) error { return nil }); err == nil {
			t.Errorf("%s: a serving engine measures", mode)
		}
	}
	boot(t, d)
	if _, err := d.Serve(t.Context(), someRequests(), nil); err == nil {
		t.Error("an engine booted for shots serves")
	}
	measureAll(t, d, decodes(3))
}

func TestServeLimitedSteps(t *testing.T) {
	d := newDriver(t, Options{Command: servingWorker(t)})
	if _, err := d.BootServing(t.Context(), servingSpec(t, perfio.ModeGraphAsync)); err != nil {
		t.Fatal(err)
	}
	zero := 0
	w := profile.Workload{Steps: 7, Requests: []profile.WorkloadRequest{{PromptTokens: 10, OutputTokens: 50, AtStep: &zero}}}
	served, err := d.Serve(t.Context(), w, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(served.Steps) != 7 || len(served.Requests) != 1 || !math.IsNaN(served.Requests[0].DoneUS) {
		t.Errorf("found %d steps and %+v", len(served.Steps), served.Requests)
	}
}

func TestServeRefused(t *testing.T) {
	d := newDriver(t, Options{Command: exampleWorker(t)})
	if modes, err := d.StepModes(t.Context()); err != nil || modes != nil {
		t.Errorf("a worker that does not serve: %v, %v", modes, err)
	}
	if _, err := d.BootServing(t.Context(), servingSpec(t, perfio.ModeEagerSync)); err == nil {
		t.Error("a worker that does not serve boots to serve")
	}
	d = newDriver(t, Options{Command: servingWorker(t)})
	if _, err := d.BootServing(t.Context(), servingSpec(t, "graph")); err == nil {
		t.Error("an unknown mode boots")
	}
	if _, err := d.Serve(t.Context(), someRequests(), nil); err == nil {
		t.Error("served before a boot")
	}
	if _, err := d.BootServing(t.Context(), servingSpec(t, perfio.ModeEagerSync)); err != nil {
		t.Fatal(err)
	}
	long := profile.Workload{Requests: []profile.WorkloadRequest{{PromptTokens: 1 << 20, OutputTokens: 1}}}
	if _, err := d.Serve(t.Context(), long, nil); err == nil || !strings.Contains(err.Error(), "longer than max_model_len") {
		t.Errorf("a request that does not fit: %v", err)
	}
}

func TestServeKilled(t *testing.T) {
	d := newDriver(t, Options{Command: servingWorker(t)})
	if _, err := d.BootServing(t.Context(), servingSpec(t, perfio.ModeEagerSync)); err != nil {
		t.Fatal(err)
	}
	p := d.client.process
	if err := syscall.Kill(p.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, err := d.Serve(t.Context(), someRequests(), nil)
	lostEngine(t, err)
	nothingLeft(t, p.pid(), p.guard.cmd.Process.Pid, p.tmp, 0)
	if _, err := d.BootServing(t.Context(), servingSpec(t, perfio.ModeEagerSync)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Serve(t.Context(), someRequests(), nil); err != nil {
		t.Error(err)
	}
}

// A model that does not fit is told from an engine that does not boot.
func TestServingOutOfMemory(t *testing.T) {
	for code, want := range map[string]bool{"out_of_memory": true, "boot": false} {
		script := `import sys; sys.path.insert(0, "../examples/worker")
import serving, worker
def boot(self, request, send): raise worker.Refused("` + code + `", "no room")
serving.ServingWorker.boot_serving = boot
worker.main(serving.ServingWorker())`
		command := servingWorker(t)
		d := newDriver(t, Options{Command: []string{command[0], "-c", script}})
		_, err := d.BootServing(t.Context(), servingSpec(t, perfio.ModeEagerSync))
		if err == nil || errors.Is(err, profile.ErrOutOfMemory) != want {
			t.Errorf("%s: found %v", code, err)
		}
	}
}

// What breaks the protocol costs the worker its life, and no number comes of it.
func TestServeReplies(t *testing.T) {
	for name, text := range map[string]string{
		"another number of steps":  `{"requests":[],"steps":1}`,
		"no number of steps":       `{"requests":[]}`,
		"a number out of range":    `{"requests":[[3,1,1,2,3,1]],"steps":0}`,
		"a request twice":          `{"requests":[[0,1,1,2,3,1],[0,1,1,2,3,1]],"steps":0}`,
		"a field too few":          `{"requests":[[0,1,1,2,3]],"steps":0}`,
		"done before its first":    `{"requests":[[0,1,1,5,3,1]],"steps":0}`,
		"a token before it came":   `{"requests":[[0,1,4,2,5,1]],"steps":0}`,
		"no arrival":               `{"requests":[[0,null,1,2,3,1]],"steps":0}`,
		"a number that is no list": `{"requests":7,"steps":0}`,
	} {
		if err := finishServed(new(profile.Served), json.RawMessage(text), 2); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, line := range map[string]string{
		"steps and a result": `{"id":1,"steps":[],"result":{}}`,
		"marks too few":      `{"id":1,"steps":[{"requests":[[1,2]],"host_marks_us":[1,2]}]}`,
	} {
		if _, err := decodeReply([]byte(line)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: found %v", name, err)
		}
	}
}

func TestServingConformance(t *testing.T) {
	checks, err := Conformance(t.Context(), Options{Command: servingWorker(t)}, profile.EngineSpec{})
	if err != nil {
		t.Fatal(err)
	}
	served := 0
	for _, c := range checks {
		if c.Problem != "" {
			t.Errorf("%s: %s", c.Name, c.Problem)
		}
		if strings.HasPrefix(c.Name, "serve: ") {
			served++
		}
	}
	if served != 3 {
		t.Errorf("%d checks of serve:\n%s", served, Report(checks))
	}
}
