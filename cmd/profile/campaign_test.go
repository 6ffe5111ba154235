package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// smallCampaign writes a campaign of one small bundle that replays source.
func smallCampaign(t *testing.T, dir, source, more string) string {
	t.Helper()
	path := filepath.Join(dir, "small.yaml")
	text := `driver: replay:` + source + `
out: ` + filepath.Join(dir, "perf") + `
flags: {max-num-batched-tokens: 64, max-num-seqs: 8, attention-max-kv: 512}
hardware:
  - name: H100
    slurm: {partition: all}
models: [meta-llama/Llama-3.1-8B]
variants: [bf16]
kubernetes: {image: registry.example/layerprof:1, storage: 10Gi, mount: ` + dir + `, node-selector: {nvidia.com/gpu.product: NVIDIA-H100}}
` + more
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func planned(t *testing.T, path string) plannedCampaign {
	t.Helper()
	got := runCommand(t, "campaign", "plan", path, "--json")
	var plan plannedCampaign
	if err := json.Unmarshal([]byte(got.stdout), &plan); got.status != exitOK || err != nil {
		t.Fatalf("status %d, %v: %s%s", got.status, err, got.stdout, got.stderr)
	}
	return plan
}

// What is measured is not asked for again, whether by shards, by a run alone or
// by something whose tables are all that there is.
func TestCampaignPlan(t *testing.T) {
	source, dir := smallBundle(t), t.TempDir()
	path := smallCampaign(t, dir, source, "shards: 3\n")
	bundle := filepath.Join(dir, "perf", smallDir)
	plan := planned(t, path)
	job := plan.Jobs[0]
	if len(plan.Jobs) != 1 || job.Bundle != bundle || job.Shots == 0 || job.Left != job.Shots || plan.ShardsLeft != 3 || plan.EstimateIsGuess || plan.Seconds <= 0 {
		t.Errorf("%+v", plan)
	}
	for _, s := range job.Shards {
		if s.Left != s.Shots || s.Shots < job.Shots/3-3 || s.Shots > job.Shots/3+3 {
			t.Errorf("shard %+v of %d shots", s, job.Shots)
		}
	}
	shard := append([]string{"run", "--driver", "replay:" + source, "--out", filepath.Join(dir, "perf"), "--variant", "bf16", "--shard", "1/3"}, smallSweep()...)
	if got := runCommand(t, shard...); got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	plan = planned(t, path)
	if job := plan.Jobs[0]; job.Left != job.Shots-job.Shards[1].Shots || job.Shards[1].Left != 0 || job.Shards[0].Left == 0 || plan.ShardsLeft != 2 {
		t.Errorf("after shard 1/3: %+v", plan)
	}
	got := runCommand(t, "campaign", "emit", path, "--target", "shell")
	if got.status != exitOK || strings.Contains(got.stdout, "--shard 1/3") || !strings.Contains(got.stdout, "--shard 2/3") {
		t.Errorf("emit: status %d: %s%s", got.status, got.stdout, got.stderr)
	}
	if got := runCommand(t, "campaign", "plan", path, "--shards"); got.status != exitOK || !strings.Contains(got.stdout, "shard 0/3") || strings.Contains(got.stdout, "shard 1/3") {
		t.Errorf("plan --shards: status %d: %s%s", got.status, got.stdout, got.stderr)
	}

	// The tables of something else, without a journal.
	if err := os.RemoveAll(bundle); err != nil {
		t.Fatal(err)
	}
	alone := append([]string{"run", "--driver", "replay:" + source, "--out", filepath.Join(dir, "perf"), "--variant", "bf16"}, smallSweep()...)
	if got := runCommand(t, alone...); got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	if plan := planned(t, path); plan.ShotsLeft != 0 || plan.Jobs[0].Seconds != 0 {
		t.Errorf("after a run alone: %+v", plan)
	}
	want := bundleFiles(t, bundle)
	if err := os.RemoveAll(filepath.Join(bundle, ".journal")); err != nil {
		t.Fatal(err)
	}
	if plan := planned(t, path); plan.ShotsLeft != 0 || plan.Jobs[0].Seconds != 0 {
		t.Errorf("with the tables there: %+v", plan)
	}
	attention := filepath.Join(bundle, "tp1", "attention.csv")
	if err := os.Remove(attention); err != nil {
		t.Fatal(err)
	}
	plan = planned(t, path)
	if left := plan.ShotsLeft; left == 0 || left == plan.Jobs[0].Shots {
		t.Errorf("with attention.csv gone: %+v", plan)
	}
	// The shards take what there is as measured, once.
	for _, i := range []string{"0/3", "1/3", "2/3"} {
		shard[len(shard)-len(smallSweep())-1] = i
		if got := runCommand(t, shard...); got.status != exitOK {
			t.Fatalf("shard %s: status %d: %s", i, got.status, got.stderr)
		}
	}
	files := mergedFiles(t, bundle)
	for name := range want {
		if name != "meta.yaml" && files[name] != want[name] {
			t.Errorf("%s differs\n%s", name, firstDifference(files[name], want[name]))
		}
	}
	if plan := planned(t, path); plan.ShotsLeft != 0 {
		t.Errorf("at the end: %+v", plan)
	}
}

// By itself the number of shards goes by the budget, and stays once some have
// begun.
func TestCampaignAutomaticShards(t *testing.T) {
	source, dir := smallBundle(t), t.TempDir()
	path := smallCampaign(t, dir, source+",delay_ms=10", "shards: auto\nbudget: 4s\n")
	plan := planned(t, path)
	n := len(plan.Jobs[0].Shards)
	if n < 2 || plan.Jobs[0].Longest > 4 {
		t.Errorf("%d shards of at most %v s", n, plan.Jobs[0].Longest)
	}
	shard := append([]string{"run", "--driver", "replay:" + source, "--out", filepath.Join(dir, "perf"), "--variant", "bf16", "--shard", "0/7"}, smallSweep()...)
	if got := runCommand(t, shard...); got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	if plan := planned(t, path); len(plan.Jobs[0].Shards) != 7 {
		t.Errorf("%d shards, 7 have begun", len(plan.Jobs[0].Shards))
	}
}

func TestCampaignUsage(t *testing.T) {
	dir := t.TempDir()
	good := smallCampaign(t, dir, smallBundle(t), "")
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("driver: roofline\nmodels: [a]\nhardware: [H100]\nflags: {iteration: 3}\nbudget: soon\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	steps := filepath.Join(dir, "steps.yaml")
	if err := os.WriteFile(steps, []byte("driver: roofline\nmodels: [meta-llama/Llama-3.1-8B]\nhardware: [H100]\nplan: {only: [dense, step]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	values := filepath.Join(dir, "values.yaml")
	text := "driver: vllm\nhardware:\n  - H100\nplan: foo\nmodels: [{id: meta-llama/Llama-3.1-8B, flags: {\n     order: x}}]\nflags:\n  attention-max-kv: -3\n"
	if err := os.WriteFile(values, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	one := func(text string) string {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text+"\nhardware: [H100]\nmodels: [meta-llama/Llama-3.1-8B]\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct {
		args   []string
		status int
		stderr []string
	}{
		{[]string{"campaign"}, exitUsage, []string{"expected plan or emit"}},
		{[]string{"campaign", "plan"}, exitUsage, []string{"arg"}},
		{[]string{"campaign", "plan", bad}, exitUsage, []string{bad + ":4:9: flags.iteration: unknown flag of profile run (iterations, max-iterations?)", bad + ":5:9: budget: found"}},
		{[]string{"campaign", "emit", good}, exitUsage, []string{"target: found \"\", expected slurm, kubernetes or shell"}},
		{[]string{"campaign", "emit", good, "--target", "slurm", "--hardware", "H300"}, exitUsage, []string{"H300"}},
		{[]string{"campaign", "plan", steps}, exitUsage, []string{steps + ":4:14: plan.only: found step", "profile run --only step"}},
		{[]string{"campaign", "plan", values}, exitUsage, []string{
			values + ":4:7: plan: found \"foo\", expected full or lean (job H100-Llama-3.1-8B)", values + ":6:13: models[0].flags.order: found \"x\"", values + ":8:21: flags.attention-max-kv: found -3"}},
		{[]string{"campaign", "plan", one("driver: nosuch")}, exitUsage, []string{"c.yaml:1:9: driver: found \"nosuch\", expected roofline"}},
		{[]string{"campaign", "emit", one("driver: nosuch"), "--target", "slurm"}, exitUsage, []string{"c.yaml:1:9: driver: found \"nosuch\", expected roofline"}},
		{[]string{"campaign", "plan", one("driver: replay:x,dela=3")}, exitUsage, []string{"c.yaml:1:9: driver: replay: unknown key \"dela\""}},
		{[]string{"campaign", "plan", one("driver: replay:" + dir + "/none")}, exitUsage, []string{"c.yaml:1:9: driver: replay: " + dir + "/none: no such"}},
		{[]string{"campaign", "plan", one("driver: roofline\nflags: {iterations: 0}")}, exitUsage, []string{"c.yaml:2:21: flags.iterations: found 0"}},
		{[]string{"campaign", "plan", one("driver: vllm\nbudget: 1s")}, exitUsage, []string{"c.yaml:2:9: budget: 1s, of which 80% are planned"}},
		{[]string{"campaign", "plan", one("driver: vllm\nvariants: [{name: a, flags: {tp-mode: b}}]")}, exitUsage, []string{"c.yaml:2:39: variants[0].flags.tp-mode: found \"b\""}},
		{[]string{"campaign", "plan", filepath.Join(dir, "absent.yaml")}, exitUsage, []string{"absent.yaml"}},
	} {
		got := runCommand(t, test.args...)
		for _, text := range test.stderr {
			if got.status != test.status || !strings.Contains(got.stderr, text) {
				t.Errorf("%v: status %d: %s, expected %d, %q", test.args, got.status, got.stderr, test.status, text)
			}
		}
	}
}

// What cannot be run, or collides, is found before anything is emitted, and said
// with its place.
func TestCampaignThatCannotRun(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	const top = "driver: vllm\nhardware: [H200]\n" // two lines
	shipped, err := perfio.LoadModelConfig("Qwen/Qwen3-32B")
	if err != nil {
		t.Fatal(err)
	}
	shipped.Document["_name_or_path"] = shipped.ID
	config, err := json.Marshal(shipped.Document)
	copied := filepath.Join(dir, "config.json")
	if err := errors.Join(err, os.WriteFile(copied, config, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ text, want string }{
		{top + "models: [meta-llama/Llama-3.1-8B]\nvariants:\n  - bf16\n  - flags: {iterations: 9}\n",
			":6:5: variants[1]: the bundle of H200-Llama-3.1-8B is perf/H200/meta-llama/Llama-3.1-8B/bf16, as that of H200-Llama-3.1-8B-bf16"},
		{top + "models: [Qwen/Qwen3-32B, " + copied + "]\n", ":3:26: models[1]: the bundle of "},
		{top + "models:\n  - id: Qwen/Qwen3-32B\n    tps: [4, 3, 1]\n", ":5:14: models[0].tps[1]: Qwen/Qwen3-32B: intermediate_size: found 25600, expected a multiple of 3"},
		{top + "models: [Qwen/Qwen3-32B]\ntps: 3\n", ":4:6: tps[0]: Qwen/Qwen3-32B: intermediate_size: found 25600"},
		{"driver: roofline\nhardware: [H200]\nmodels: [Qwen/Qwen3-32B]\ntps: 3\n", ":4:6: tps[0]: Qwen/Qwen3-32B: intermediate_size: found 25600"},
		// The engine divides, or says why it cannot.
		{top + "models: [Qwen/Qwen3-32B]\ntps: 3\nflags: {tp-mode: real}\n", ""},
	} {
		if err := os.WriteFile(path, []byte(test.text), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"campaign", "plan", path}, {"campaign", "emit", path, "--target", "shell"}} {
			got := runCommand(t, args...)
			if ok := test.want == ""; ok && got.status != exitOK || !ok && (got.status != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, "profile: "+path+test.want)) {
				t.Errorf("%v: status %d: %s%s, expected %s, of:\n%s", args, got.status, got.stdout, got.stderr, test.want, test.text)
			}
		}
	}
}

// emitted emits a campaign into a folder and reads one of its files.
func emitted(t *testing.T, path, target, name string) string {
	t.Helper()
	out := t.TempDir()
	if got := runCommand(t, "campaign", "emit", path, "--target", target, "-o", out); got.status != exitOK || !strings.Contains(got.stdout, name) {
		t.Fatalf("status %d: %s%s", got.status, got.stdout, got.stderr)
	}
	text, err := os.ReadFile(filepath.Join(out, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A plan that is damaged, or gone, once all is measured: a shard is to run once
// more, and then the merge has it.
func TestCampaignPlanDamaged(t *testing.T) {
	source, dir := smallBundle(t), t.TempDir()
	path := smallCampaign(t, dir, source, "shards: 2\n")
	run := func() {
		t.Helper()
		script := runCommand(t, "campaign", "emit", path, "--target", "shell")
		commands := regexp.MustCompile("(?m)^profile (run .*)$").FindAllStringSubmatch(script.stdout, -1)
		if script.status != exitOK || len(commands) == 0 {
			t.Fatalf("status %d: %s%s", script.status, script.stdout, script.stderr)
		}
		for _, command := range commands {
			if got := runCommand(t, strings.Fields(command[1])...); got.status != exitOK {
				t.Fatalf("status %d: %s", got.status, got.stderr)
			}
		}
	}
	run()
	bundle := filepath.Join(dir, "perf", smallDir)
	want := mergedFiles(t, bundle)
	file := filepath.Join(bundle, ".journal", "plan-tp1.json")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := slices.Clone(whole)
	changed[len(changed)/2] ^= 1
	for name, spoil := range map[string]func() error{
		"damaged": func() error { return os.WriteFile(file, changed, 0o666) },
		"absent":  func() error { return os.Remove(file) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		got := runCommand(t, "campaign", "plan", path, "--shards")
		if got.status != exitOK || !strings.Contains(got.stdout, "1 shards have 0 shots left") || !strings.Contains(got.stdout, "shard 0/2") ||
			!strings.Contains(got.stderr, "H100-Llama-3.1-8B-bf16: "+file+": the shards' plan is "+name) {
			t.Errorf("%s: status %d: %s%s", name, got.status, got.stdout, got.stderr)
		}
		if _, err := profile.MergeShards(profile.MergeOptions{Dir: bundle}); err == nil || name == "damaged" && !strings.Contains(err.Error(), "any of the shards makes it anew") {
			t.Errorf("%s: merge: %v", name, err)
		}
		run()
		if got := runCommand(t, "campaign", "plan", path); got.stderr != "" || !strings.Contains(got.stdout, "; 0 shards have 0 shots left") {
			t.Errorf("%s, run again: %s%s", name, got.stdout, got.stderr)
		}
		sameFiles(t, mergedFiles(t, bundle), want)
	}
}

// Nothing that an earlier emission left is there to be submitted, and where
// nothing is left to measure the status says so, with a folder and without.
func TestEmitNothingLeft(t *testing.T) {
	source, dir := smallBundle(t), t.TempDir()
	path := smallCampaign(t, dir, source, "shards: 2\n")
	out := filepath.Join(dir, "jobs")
	emit := func(target string, more ...string) result {
		return runCommand(t, append([]string{"campaign", "emit", path, "--target", target}, more...)...)
	}
	emittedFile := map[string]string{"slurm": "small-H100.sbatch", "kubernetes": "small-H100.yaml", "shell": "small.sh"}
	for target := range emittedFile {
		if got := emit(target, "-o", out); got.status != exitOK || got.stderr != "" {
			t.Fatalf("%s: status %d: %s", target, got.status, got.stderr)
		}
	}
	if info, err := os.Stat(filepath.Join(out, "small-H100.sbatch")); err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Errorf("the script is not to be run: %v, %v", info, err)
	}
	// Not ours, or another campaign's, or another hardware's.
	kept := map[string]string{
		"small-notes.sh": "#!/bin/sh\n# Campaign small: mine\n", "small-H200.sbatch": "# Campaign small: 3 shards on H200. Written by profile campaign emit.\n",
		"small-a-H100.sbatch": "# Campaign small-a: 3 shards on H100. Written by profile campaign emit.\n",
	}
	for name, text := range kept {
		if err := os.WriteFile(filepath.Join(out, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(out, "small-H100-2.sbatch"), []byte("# Campaign small: 17 shards on H100. Written by profile campaign emit.\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, i := range []string{"0/2", "1/2"} {
		args := append([]string{"run", "--driver", "replay:" + source, "--out", filepath.Join(dir, "perf"), "--variant", "bf16", "--shard", i}, smallSweep()...)
		if got := runCommand(t, args...); got.status != exitOK {
			t.Fatalf("status %d: %s", got.status, got.stderr)
		}
	}
	for target, name := range emittedFile {
		got := emit(target, "-o", out)
		if got.status != exitFailure || got.stdout != filepath.Join(out, "small-merge.sh")+"\n" || !strings.Contains(got.stderr, "removed "+filepath.Join(out, name)) ||
			!strings.Contains(got.stderr, "every shard is measured") {
			t.Errorf("%s: status %d: %s%s", target, got.status, got.stdout, got.stderr)
		}
		if got := emit(target); got.status != exitFailure || got.stdout != "" || !strings.Contains(got.stderr, "every shard is measured") {
			t.Errorf("%s without a folder: status %d: %s%s", target, got.status, got.stdout, got.stderr)
		}
	}
	entries, err := os.ReadDir(out)
	if err != nil || len(entries) != len(kept)+1 {
		t.Errorf("%v, %v", entries, err)
	}
	for name, text := range kept {
		if found, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(found) != text {
			t.Errorf("%s: %v, %q", name, err, found)
		}
	}
	if got := emit("slurm", "-o", out, "--all"); got.status != exitOK || !strings.Contains(got.stdout, "small-H100.sbatch") {
		t.Errorf("--all: status %d: %s%s", got.status, got.stdout, got.stderr)
	}
}

// A folder that cannot be written into has no part of a script.
func TestEmitIsWhole(t *testing.T) {
	path := smallCampaign(t, t.TempDir(), smallBundle(t), "shards: 2\n")
	full := filepath.Join(t.TempDir(), "full")
	if err := os.Mkdir(full, 0o777); err != nil {
		t.Fatal(err)
	}
	script, err := exec.LookPath("prlimit")
	if err != nil {
		t.Skip("prlimit is not there")
	}
	// A limit of a file's size ends a write as a full disk does.
	cmd, _, stderr := profileProcess("campaign", "emit", path, "--target", "slurm", "-o", full)
	cmd.Args = append([]string{script, "--fsize=500", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = script
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "file too large") {
		t.Errorf("%v: %s", err, stderr)
	}
	if entries, err := os.ReadDir(full); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestManifests has what is emitted validated against the API's schemas.
func TestManifests(t *testing.T) {
	validate, err := exec.LookPath("kubectl-validate")
	if err != nil {
		t.Skip("there is no kubectl-validate; .ci/kubernetes installs it")
	}
	dir := t.TempDir()
	path := smallCampaign(t, dir, smallBundle(t), "shards: 5\nparallel: 2\nbudget: 1h\n")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	full := strings.Replace(string(text), "storage: 10Gi,", `storage: 10Gi, storage-class: nfs, namespace: profiling, secret: hub-token, grace-period: 5m, gpus: 2,
  pod: {priorityClassName: low, tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]},`, 1)
	none := strings.Replace(string(text), "storage: 10Gi,", "claim: there, gpus: 0,", 1)
	for name, text := range map[string]string{"plain": string(text), "all keys": full, "no claim, no GPU": none} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		manifest := filepath.Join(dir, "manifest.yaml")
		good := emitted(t, path, "kubernetes", "small-H100.yaml")
		for _, change := range []struct {
			from, to string
			valid    bool
		}{{"", "", true}, {"completionMode:", "completionMod:", false}, {"backoffLimitPerIndex: 19", "backoffLimitPerIndex: many", false}} {
			if err := os.WriteFile(manifest, []byte(strings.Replace(good, change.from, change.to, 1)), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, version := range []string{"1.29", "1.30"} {
				out, err := exec.Command(validate, manifest, "--version", version).CombinedOutput()
				if (err == nil) != change.valid {
					t.Errorf("%s, %q for %q, Kubernetes %s: %v: %s\n%s", name, change.to, change.from, version, err, out, good)
				}
			}
		}
	}
}

// indexedPod is what an Indexed Job starts: the container's command line with
// the index in place of the variable.
type indexedPod struct {
	args  []string
	grace time.Duration
}

func indexedPods(t *testing.T, manifest string) []indexedPod {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(manifest))
	for {
		var job struct {
			Kind string
			Spec struct {
				Completions int
				Template    struct {
					Spec struct {
						Grace      int `yaml:"terminationGracePeriodSeconds"`
						Containers []struct{ Args []string }
					}
				}
			}
		}
		if err := decoder.Decode(&job); err != nil {
			t.Fatalf("no job: %v\n%s", err, manifest)
		}
		if job.Kind != "Job" {
			continue
		}
		reference := regexp.MustCompile(`\$\$|\$\(([A-Z_]+)\)`)
		var pods []indexedPod
		for i := range job.Spec.Completions {
			pod := indexedPod{grace: time.Duration(job.Spec.Template.Spec.Grace) * time.Second}
			for _, arg := range job.Spec.Template.Spec.Containers[0].Args {
				pod.args = append(pod.args, reference.ReplaceAllStringFunc(arg, func(found string) string {
					switch found {
					case "$$":
						return "$"
					case "$(JOB_COMPLETION_INDEX)":
						return string(rune('0' + i))
					}
					return found
				}))
			}
			pods = append(pods, pod)
		}
		return pods
	}
}

// An Indexed Job's pods as processes: all at once, each ended in one of the ways
// in which a cluster ends pods, and started anew until it ends well.
func TestIndexedJob(t *testing.T) {
	source, dir, whole := smallBundle(t), t.TempDir(), t.TempDir()
	if got := runCommand(t, append([]string{"run", "--driver", "replay:" + source, "--out", whole, "--variant", "bf16"}, smallSweep()...)...); got.status != exitOK {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	path := smallCampaign(t, dir, source+",delay_ms=20", "shards: 5\n")
	pods := indexedPods(t, emitted(t, path, "kubernetes", "small-H100.yaml"))
	bundle := filepath.Join(dir, "perf", smallDir)
	if len(pods) != 5 {
		t.Fatalf("%d pods", len(pods))
	}
	endings := [][]os.Signal{
		{syscall.SIGTERM},                  // eviction
		{syscall.SIGTERM, syscall.SIGTERM}, // twice in a row
		{syscall.SIGKILL},                  // out of memory, a node lost
		{syscall.SIGKILL, syscall.SIGTERM},
		nil,
	}
	var all sync.WaitGroup
	for i, pod := range pods {
		all.Go(func() {
			journal := journalOf(bundle, pod.args[len(pod.args)-1])
			for attempt := 0; ; attempt++ {
				args, before := slices.Clone(pod.args), lineCount(journal)
				if attempt < len(endings[i]) { // it is not to be through before it is ended
					for n := range args {
						args[n] = strings.Replace(args[n], "delay_ms=20", "delay_ms=150", 1)
					}
				}
				cmd, _, stderr := profileProcess(args...)
				if err := cmd.Start(); err != nil {
					t.Error(err)
					return
				}
				ended := make(chan struct{})
				go func() {
					_ = cmd.Wait() // its status is looked at below
					close(ended)
				}()
				if attempt >= len(endings[i]) {
					<-ended
					if status := cmd.ProcessState.ExitCode(); status != exitOK {
						t.Errorf("pod %d: status %d: %s", i, status, stderr)
					}
					return
				}
				// Once it writes it knows what to do at a signal.
				for running := true; running && lineCount(journal) < before+10; {
					select {
					case <-ended:
						running = false
					case <-time.After(10 * time.Millisecond):
					}
				}
				_ = cmd.Process.Signal(endings[i][attempt]) // should it have ended, its status says so
				select {
				case <-ended:
				case <-time.After(pod.grace):
					_ = cmd.Process.Kill()
					<-ended
					t.Errorf("pod %d did not end within %v: %s", i, pod.grace, stderr)
				}
				if status := cmd.ProcessState.ExitCode(); endings[i][attempt] == syscall.SIGTERM && status != exitPartial {
					t.Errorf("pod %d: status %d after SIGTERM: %s", i, status, stderr)
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	sameFiles(t, mergedFiles(t, bundle), bundleFiles(t, filepath.Join(whole, smallDir)))
	for _, pod := range pods { // a pod of an index that is through
		cmd, stdout, stderr := profileProcess(pod.args...)
		if err := cmd.Run(); err != nil || !strings.Contains(stdout.String(), " 0 shots measured") || strings.Contains(stderr.String(), "starting the engine") {
			t.Errorf("started again: %v: %s%s", err, stdout, stderr)
		}
	}
}
