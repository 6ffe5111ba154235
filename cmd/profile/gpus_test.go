package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

func TestGPUsReplay(t *testing.T) {
	source := smallBundle(t)
	replay := "replay:" + source
	whole, fleet := t.TempDir(), t.TempDir()
	if got := runCommand(t, append([]string{"run", "--driver", replay, "--out", whole}, smallSweep()...)...); got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	got := runCommand(t, append([]string{"run", "--driver", replay, "--out", fleet, "--gpus", "0,2,5"}, smallSweep()...)...)
	if got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	for _, device := range []string{"gpu0", "gpu2", "gpu5"} {
		if !strings.Contains(got.stderr, device+": ") || strings.Contains(got.stderr, device+": 0 shots") {
			t.Errorf("%s measured nothing: %s", device, got.stderr)
		}
	}
	sameTables(t, bundleFiles(t, filepath.Join(fleet, smallDir)), bundleFiles(t, filepath.Join(whole, smallDir)))
	again := runCommand(t, "resume", filepath.Join(fleet, smallDir))
	if again.status != exitOK || !strings.Contains(again.stdout, " 0 shots measured") {
		t.Errorf("resume: status %d: %s%s", again.status, again.stdout, again.stderr)
	}
}

// sameTables compares tables byte for byte; what meta.yaml says of shards and
// anchors is another run's.
func sameTables(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name := range want {
		if name != perfio.MetaFile && got[name] != want[name] {
			t.Errorf("%s differs: %d bytes, expected %d", name, len(got[name]), len(want[name]))
		}
	}
}

// deviceWorker is the example worker on three devices, of which number 1 is as
// slow and dies as the test says.
func deviceWorker(t *testing.T, slow float64, diesAfter int) (command, seen string) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not there")
	}
	example, err := filepath.Abs("../../examples/worker/worker.py")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	seen = filepath.Join(dir, "seen")
	text := fmt.Sprintf(`import importlib.util, os
spec = importlib.util.spec_from_file_location("worker", %q)
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
device, dead = os.environ.get("CUDA_VISIBLE_DEVICES"), %q  # none for the one that is only asked what it is
assert device is None or os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
with open(%q, "a") as f:
    f.write(f"{device}\n")
if device == "1":
    worker.FLOPS, worker.BYTES, worker.LAUNCH_US = worker.FLOPS / %g, worker.BYTES / %[4]g, worker.LAUNCH_US * %[4]g
    boot, measure, left = worker.Worker.boot, worker.Worker.measure_shot, [%d]
    def gone():
        open(dead, "w").close()
        os._exit(9)
    def booting(self, request, send):
        return gone() if os.path.exists(dead) else boot(self, request, send)
    def measuring(self, shot, request):
        left[0] -= 1
        return gone() if left[0] == 0 else measure(self, shot, request)
    worker.Worker.boot, worker.Worker.measure_shot = booting, measuring
worker.main(*[worker.Worker()][:worker.main.__code__.co_argcount])
`, example, filepath.Join(dir, "dead"), seen, slow, diesAfter)
	script := filepath.Join(dir, "device.py")
	if err := os.WriteFile(script, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return "exec:" + python + " " + script, seen
}

// deviceSweep is small, and its numbers have anchors.
func deviceSweep(driver, out string) []string {
	return append([]string{"run", "--driver", driver, "--out", out, "--gpus", "0,1,2", "--anchor-every", "20", "--only", "dense,per_sequence,attention"},
		smallSweep()...)
}

func TestGPUSetApart(t *testing.T) {
	driver, seen := deviceWorker(t, 1.3, 0)
	out := t.TempDir()
	got := runCommand(t, deviceSweep(driver, out)...)
	dir := filepath.Join(out, smallDir)
	if got.status != exitOK || !strings.Contains(got.stderr, "gpu1: its anchors took 1.3") || !strings.Contains(got.stderr, "kept apart, in "+dir+"-gpu1") {
		t.Fatalf("status %d: %s%s", got.status, got.stdout, got.stderr)
	}
	pinned, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	for _, device := range []string{"0", "1", "2"} {
		if !slices.Contains(strings.Fields(string(pinned)), device) {
			t.Errorf("workers saw the devices %q, expected %s among them", pinned, device)
		}
	}
	main, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	apart, err := perfio.OpenBundle(dir + "-gpu1")
	if err != nil {
		t.Fatal(err)
	}
	// The bundle has every row, none of them the slow device's, which has a part.
	times := make(map[[2]any]float64)
	for _, row := range main.TPs[0].Dense {
		times[[2]any{row.Layer, row.Tokens}] = row.TimeUS
	}
	if n, part := len(main.TPs[0].Dense), len(apart.TPs[0].Dense); part == 0 || part > n*2/3 || main.Meta.Get("missing_shots") != nil {
		t.Errorf("%d dense rows, %d apart", n, part)
	}
	for _, row := range apart.TPs[0].Dense {
		if ratio := row.TimeUS / times[[2]any{row.Layer, row.Tokens}]; ratio < 1.28 || ratio > 1.32 {
			t.Errorf("%s %d: the slow device took %v times as long, expected 1.3", row.Layer, row.Tokens, ratio)
		}
	}
}

func TestGPULost(t *testing.T) {
	driver, _ := deviceWorker(t, 1, 25)
	out := t.TempDir()
	got := runCommand(t, deviceSweep(driver, out)...)
	if got.status != exitOK || !strings.Contains(got.stderr, "gpu1 is lost: tp1: boot:") || !strings.Contains(got.stderr, "it was lost") {
		t.Fatalf("status %d: %s%s", got.status, got.stdout, got.stderr)
	}
	bundle, err := perfio.OpenBundle(filepath.Join(out, smallDir))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(bundle.TPs[0].Attention); n == 0 || bundle.Meta.Get("missing_shots") != nil {
		t.Errorf("%d attention rows, missing shots %v", n, bundle.Meta.Text("missing_shots"))
	}
}

func TestGPUGroups(t *testing.T) {
	fake := t.TempDir()
	if err := os.WriteFile(filepath.Join(fake, "nvidia-smi"), []byte("#!/bin/sh\necho 0\necho 1\necho 3\n"), 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CUDA_VISIBLE_DEVICES", "")
	for _, test := range []struct {
		gpus, mode string
		tps        []int
		path       string
		want       string // the groups, or a part of the error
		env        string // of the first group
	}{
		{"0,2,5", "emulated", []int{1, 2}, fake, "[[0] [2] [5]]", "map[CUDA_DEVICE_ORDER:PCI_BUS_ID CUDA_VISIBLE_DEVICES:0]"},
		{"all", "emulated", []int{1}, fake, "[[0] [1] [3]]", "map[CUDA_DEVICE_ORDER:PCI_BUS_ID CUDA_VISIBLE_DEVICES:0]"},
		{"all", "emulated", []int{1}, "/nowhere", "nvidia-smi", ""},
		{"0,1,2,3", "real", []int{1, 2}, fake, "[[0 1] [2 3]]", "map[CUDA_DEVICE_ORDER:PCI_BUS_ID CUDA_VISIBLE_DEVICES:0,1]"},
		{"0,1,2", "real", []int{2}, fake, "expected a multiple of 2", ""},
		{"cpu:0-1,cpu:2-3", "emulated", []int{1}, fake, "[[cpu:0-1] [cpu:2-3]]", "map[VLLM_CPU_OMP_THREADS_BIND:0-1]"},
		{"cpu:0,cpu:1", "real", []int{2}, fake, "[[cpu:0 cpu:1]]", "map[VLLM_CPU_OMP_THREADS_BIND:0|1]"},
		{"cpu:0,cpu:1", "real", []int{1, 2}, fake, "expected one", ""},
		{"0,0", "emulated", []int{1}, fake, "found 0 twice", ""},
		{"0,,1", "emulated", []int{1}, fake, `found "0,,1"`, ""},
		{"-1", "emulated", []int{1}, fake, `found the device "-1"`, ""},
		{"0,-1", "emulated", []int{1}, fake, `found the device "-1"`, ""},
		{"cpu:-1", "emulated", []int{1}, fake, `found the device "cpu:-1"`, ""},
		{"../x", "emulated", []int{1}, fake, `found the device "../x"`, ""},
		{"GPU-8f2a,MIG-GPU-1/2/0", "emulated", []int{1}, fake, "[[GPU-8f2a] [MIG-GPU-1/2/0]]", "map[CUDA_DEVICE_ORDER:PCI_BUS_ID CUDA_VISIBLE_DEVICES:GPU-8f2a]"},
		{"0,cpu:1", "emulated", []int{1}, fake, "devices of one kind", ""},
	} {
		t.Setenv("PATH", test.path)
		f := &runFlags{sweepFlags: &sweepFlags{TPs: test.tps, TPMode: test.mode}, GPUs: test.gpus, DeviceEnv: "CUDA_VISIBLE_DEVICES", DeviceLimit: 0.05}
		groups, err := f.gpuGroups(t.Context())
		switch {
		case err != nil && (test.env != "" || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, expected %q", test.gpus, err, test.want)
		case err == nil && (fmt.Sprint(groups) != test.want || fmt.Sprint(f.deviceEnv(groups[0])) != test.env):
			t.Errorf("%s: %v with %v, expected %s with %s", test.gpus, groups, f.deviceEnv(groups[0]), test.want, test.env)
		}
	}
	t.Setenv("CUDA_VISIBLE_DEVICES", "4,6")
	f := &runFlags{sweepFlags: &sweepFlags{TPs: []int{1}, TPMode: string(profile.EmulatedTP)}, GPUs: "all", DeviceLimit: 0.05}
	if groups, err := f.gpuGroups(t.Context()); err != nil || fmt.Sprint(groups) != "[[4] [6]]" {
		t.Errorf("all of CUDA_VISIBLE_DEVICES: %v, %v", groups, err)
	}
	if got := runCommand(t, append([]string{"run", "--driver", "roofline", "--gpus", "0,1", "--max-gpu-ratio", "-0.1"}, smallSweep()...)...); got.status != exitUsage {
		t.Errorf("a negative limit: status %d, %s", got.status, got.stderr)
	}
	if got := runCommand(t, append([]string{"run", "--driver", "roofline", "--gpus", ""}, smallSweep()...)...); got.status != exitUsage || !strings.Contains(got.stderr, `gpus: found ""`) {
		t.Errorf("an empty list: status %d, %s", got.status, got.stderr)
	}
	if got := runCommand(t, append([]string{"run", "--driver", "roofline", "--gpus", "0,1", "--shard", "0/2"}, smallSweep()...)...); got.status != exitUsage {
		t.Errorf("gpus and shard: status %d, %s", got.status, got.stderr)
	}
}
