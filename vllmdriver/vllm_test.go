//go:build linux

package vllmdriver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// vllmPython is the interpreter of an environment with a real vLLM; tests with
// a real engine run only where LAYERPROF_VLLM_PYTHON names it.
func vllmPython(t *testing.T) string {
	t.Helper()
	python := os.Getenv("LAYERPROF_VLLM_PYTHON")
	if python == "" {
		t.Skip("LAYERPROF_VLLM_PYTHON does not name a Python with vLLM")
	}
	return python
}

// tinyLlama is small enough for a CPU engine; its MLP is as wide as asked.
func tinyLlama(t *testing.T, tokens, intermediate int) profile.EngineSpec {
	t.Helper()
	model, err := perfio.ParseModelConfig(strings.NewReader(fmt.Sprintf(`{"architectures":["LlamaForCausalLM"],"model_type":"llama",
		"hidden_size":512,"intermediate_size":%d,"num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":4,"head_dim":64,
		"vocab_size":4096,"max_position_embeddings":16384,"rms_norm_eps":1e-5,"rope_theta":10000.0,"hidden_act":"silu",
		"torch_dtype":"bfloat16","tie_word_embeddings":false,"bos_token_id":1,"eos_token_id":2}`, intermediate)), "tiny-llama.json")
	if err != nil {
		t.Fatal(err)
	}
	arch, err := perfio.LoadArchitecture(model.ModelType)
	if err != nil {
		t.Fatal(err)
	}
	return profile.EngineSpec{
		Model: model, Architecture: arch, TP: 1, DType: "bfloat16", KVCacheDType: "auto",
		MaxNumBatchedTokens: tokens, MaxNumSeqs: 16, MaxModelLen: 2 * tokens, Blocks: 2, Seed: 1,
	}
}

// bootVLLM logs what came, for the record of a run by hand.
func bootVLLM(t *testing.T, d *Driver, spec profile.EngineSpec) *profile.Engine {
	t.Helper()
	began := time.Now()
	e, err := d.Boot(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("boot of vLLM %s in %v: %s, %s", e.VLLMVersion, time.Since(began).Round(100*time.Millisecond), e.GPU, e.ModelRunner)
	return e
}

// firesShots wants n shots answered. A single noisy one may be refused by the
// worker's own checks of its samples; the count is logged.
func firesShots(t *testing.T, d *Driver, n int) {
	t.Helper()
	ok := 0
	err := d.Measure(t.Context(), decodes(n), profile.MeasureOptions{Warmup: 2, Iterations: 3}, func(r profile.Result) error {
		if r.Status == profile.OK {
			ok++
		} else {
			t.Logf("shot %d: %s: %s", r.Index, r.Status, r.Message)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d shots ok", ok, n)
	if ok < (n+1)/2 {
		t.Errorf("found %d good shots of %d", ok, n)
	}
}

func TestVLLMConformance(t *testing.T) {
	checks, err := Conformance(t.Context(), Options{Python: vllmPython(t)}, profile.EngineSpec{})
	t.Logf("\n%s", Report(checks))
	if err != nil {
		t.Error(err)
	}
	for _, c := range checks {
		if c.Problem != "" {
			t.Errorf("%s: %s", c.Name, c.Problem)
		}
	}
}

// TestVLLMFaults is the fault table on a real engine.
func TestVLLMFaults(t *testing.T) {
	python := vllmPython(t)
	// A library that never stops printing, on standard output and past Python.
	noise := t.TempDir()
	text := "import os, threading, time\n" +
		"def noise():\n    while True:\n        os.write(1, b'{\"id\": 1, \"result\": {}}\\nINFO noise {\\n')\n        time.sleep(0.05)\n" +
		"threading.Thread(target=noise, daemon=True).start()\n"
	if err := os.WriteFile(filepath.Join(noise, "sitecustomize.py"), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, Options{Python: python, Env: []string{"PYTHONPATH=" + noise}})
	spec := tinyLlama(t, 256, 1024)

	t.Run("noise on standard output", func(t *testing.T) {
		bootVLLM(t, d, spec)
		firesShots(t, d, 8)
		if !strings.Contains(d.LastWords(), "INFO noise {") {
			t.Errorf("the noise is not in the log: %q", d.LastWords())
		}
	})
	if d.client == nil {
		t.FailNow()
	}
	t.Run("beyond limits", func(t *testing.T) {
		shots := []profile.Shot{
			{Groups: []profile.Group{{Count: 17, NewTokens: 1, KVHistory: 4}}},
			{Groups: []profile.Group{{Count: 1, NewTokens: 273, KVHistory: 0}}},
			{Groups: []profile.Group{{Count: 1, NewTokens: 1, KVHistory: 511}}},
		}
		err := d.Measure(t.Context(), shots, samples, func(r profile.Result) error {
			if r.Status != profile.Infeasible {
				t.Errorf("shot %d: found %s (%s), expected infeasible", r.Index, r.Status, r.Message)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("killed in mid-shot", func(t *testing.T) {
		p := d.client.process
		time.AfterFunc(300*time.Millisecond, func() { _ = syscall.Kill(p.pid(), syscall.SIGKILL) })
		err := d.Measure(t.Context(), decodes(500), samples, func(profile.Result) error { return nil })
		lost := lostEngine(t, err)
		t.Logf("%v; shot %d", err, lost.Index)
		if !strings.Contains(err.Error(), "signal: killed") || lost.LastWords == "" {
			t.Errorf("found %v with the last words %q", err, lost.LastWords)
		}
		nothingLeft(t, p.pid(), p.guard.cmd.Process.Pid, p.tmp, 0)
		bootVLLM(t, d, spec)
		firesShots(t, d, 4)
	})
	t.Run("hang", func(t *testing.T) {
		p := d.client.process
		if err := syscall.Kill(p.pid(), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		err := d.Measure(t.Context(), decodes(1), profile.MeasureOptions{Warmup: 1, Iterations: 1, Deadline: time.Second},
			func(profile.Result) error { return nil })
		if lost := lostEngine(t, err); !errors.Is(err, context.DeadlineExceeded) || lost.Index != 0 {
			t.Errorf("found %v for shot %d, expected a deadline that passed for shot 0", err, lost.Index)
		}
		nothingLeft(t, p.pid(), p.guard.cmd.Process.Pid, p.tmp, 0)
	})
	t.Run("out of memory", func(t *testing.T) {
		wide := tinyLlama(t, 8192, 16384)
		bootVLLM(t, d, wide)
		p := d.client.process
		var before unix.Rlimit
		limit := unix.Rlimit{Cur: addressSpace(t, p.pid()) + 100<<20, Max: unix.RLIM_INFINITY}
		if err := unix.Prlimit(p.pid(), unix.RLIMIT_AS, &limit, &before); err != nil {
			t.Fatal(err)
		}
		large := []profile.Shot{{Groups: []profile.Group{{Count: 1, NewTokens: 8000, KVHistory: 0}}}}
		var found profile.Status
		err := d.Measure(t.Context(), large, samples, func(r profile.Result) error {
			found = r.Status
			t.Logf("%s: %s", r.Status, r.Message)
			return nil
		})
		switch {
		case err != nil: // the engine did not survive; a fresh one does
			t.Logf("the engine was lost: %v", lostEngine(t, err))
			bootVLLM(t, d, wide)
		case found != profile.OutOfMemory:
			t.Errorf("found %s, expected out_of_memory", found)
		default:
			if err := unix.Prlimit(p.pid(), unix.RLIMIT_AS, &before, nil); err != nil {
				t.Fatal(err)
			}
		}
		firesShots(t, d, 4)
	})
}

// addressSpace is a process's size in bytes.
func addressSpace(t *testing.T, pid int) uint64 {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmSize:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatal("no VmSize")
	}
	kib, err := strconv.ParseUint(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

func TestVLLMBrokenImport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "torch")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	text := "raise ImportError('libcudart.so.99: cannot open shared object file')\n"
	if err := os.WriteFile(filepath.Join(dir, "__init__.py"), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, Options{Python: vllmPython(t), Env: []string{"PYTHONPATH=" + filepath.Dir(dir)}})
	_, err := d.Boot(t.Context(), tinyLlama(t, 256, 1024))
	var refusal *WorkerError
	if !errors.As(err, &refusal) || refusal.Code != "import" || !strings.Contains(err.Error(), "libcudart.so.99") {
		t.Errorf("found %v, expected the error import with its cause", err)
	}
}

func TestVLLMParentKilled(t *testing.T) {
	pid, guard, tmp, _ := killParent(t, "parent", 1, []string{"LAYERPROF_VLLM_PYTHON=" + vllmPython(t)})
	began := time.Now()
	nothingLeft(t, pid, guard, tmp, 5*time.Second)
	t.Logf("nothing left %v after the parent was killed", time.Since(began).Round(10*time.Millisecond))
}
