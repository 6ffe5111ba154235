package campaign

import (
	"errors"
	"fmt"
	"os/exec"
	"path"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
)

// checkFlag knows three flags.
func checkFlag(name, value string) error {
	switch {
	case name != "driver" && name != "plan" && name != "iterations" && name != "kv-cache-dtype" && name != "only":
		return errors.New("unknown flag")
	case name == "iterations" && strings.Trim(value, "0123456789") != "":
		return fmt.Errorf("found %q, expected a number", value)
	}
	return nil
}

const example = `name: autumn
out: /campaign/perf
driver: vllm
plan: {plan: lean, iterations: 5}
budget: 4h
shards: 3
tps: [2, 1]
parallel: 2
engine-args: {swap-space: 4, seed: "7"}
hardware:
  - H200
  - name: H100
    flags: {iterations: 9}
    slurm: {partition: h100, exclusive: , time: "4:30:00"}
models:
  - meta-llama/Llama-3.1-8B
  - id: models/mine/config.json
    tps: 4
    engine-args: {swap-space: 8}
variants:
  - bf16
  - name: bf16-kvfp8
    flags: {kv-cache-dtype: fp8, only: [dense, attention]}
exclude:
  - {hardware: H100, variant: bf16-kvfp8}
slurm: {account: team, partition: all}
kubernetes: {image: registry.example/layerprof:1, storage: 10Gi, node-selector: {gpu: H200}, grace-period: 90s}
`

func mustParse(t testing.TB, text string) *Campaign {
	t.Helper()
	c, err := Parse("autumn.yaml", []byte(text), checkFlag)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestJobs(t *testing.T) {
	c := mustParse(t, example)
	if c.Budget != 4*time.Hour || c.Shards != 3 || c.Attempts != DefaultAttempts || c.Name != "autumn" {
		t.Errorf("%+v", c)
	}
	var got []string
	for _, j := range c.Jobs() {
		got = append(got, j.Name()+": "+strings.Join(j.Args("1"), " "))
	}
	want := []string{
		"H200-Llama-3.1-8B-bf16: run --model meta-llama/Llama-3.1-8B --hardware H200 --variant bf16 --tp 1,2 --out /campaign/perf --driver=vllm --plan=lean --iterations=5 --engine-arg=swap-space=4 --engine-arg=seed=7 --budget 4h0m0s --shard 1/3",
		"H200-Llama-3.1-8B-bf16-kvfp8: run --model meta-llama/Llama-3.1-8B --hardware H200 --variant bf16-kvfp8 --tp 1,2 --out /campaign/perf --driver=vllm --plan=lean --iterations=5 --kv-cache-dtype=fp8 --only=dense,attention --engine-arg=swap-space=4 --engine-arg=seed=7 --budget 4h0m0s --shard 1/3",
		"H200-mine-bf16: run --model models/mine/config.json --hardware H200 --variant bf16 --tp 4 --out /campaign/perf --driver=vllm --plan=lean --iterations=5 --engine-arg=swap-space=8 --engine-arg=seed=7 --budget 4h0m0s --shard 1/3",
		"H200-mine-bf16-kvfp8: run --model models/mine/config.json --hardware H200 --variant bf16-kvfp8 --tp 4 --out /campaign/perf --driver=vllm --plan=lean --iterations=5 --kv-cache-dtype=fp8 --only=dense,attention --engine-arg=swap-space=8 --engine-arg=seed=7 --budget 4h0m0s --shard 1/3",
		"H100-Llama-3.1-8B-bf16: run --model meta-llama/Llama-3.1-8B --hardware H100 --variant bf16 --tp 1,2 --out /campaign/perf --driver=vllm --plan=lean --iterations=9 --engine-arg=swap-space=4 --engine-arg=seed=7 --budget 4h0m0s --shard 1/3",
		"H100-mine-bf16: run --model models/mine/config.json --hardware H100 --variant bf16 --tp 4 --out /campaign/perf --driver=vllm --plan=lean --iterations=9 --engine-arg=swap-space=8 --engine-arg=seed=7 --budget 4h0m0s --shard 1/3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
}

const minimal = "driver: vllm\nhardware: [H200]\nmodels: [a/b]\n"

func TestParseErrors(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"empty", "# nothing\n", "c.yaml: found an empty file"},
		{"a list", "- a\n", "c.yaml:1:1: found a list, expected a mapping"},
		{"syntax", "driver: x\nmodels: [a,\n  b\n", "c.yaml:2: did not find expected ',' or ']'"},
		{"two documents", minimal + "---\na: b\n", "c.yaml:4:1: found a second document"},
		{"unknown key", minimal + "budgets: 1h\n", "c.yaml:4:1: budgets: unknown key, expected one of attempts, budget"},
		{"twice", minimal + "driver: exec:x\n", "c.yaml:4:1: driver: stands twice"},
		{"no models", "driver: vllm\nhardware: [H200]\n", "c.yaml:1:1: models: is missing"},
		{"no driver", "hardware: [H200]\nmodels: [a]\n", "c.yaml:1:1: driver: is missing"},
		{"empty list", "driver: vllm\nhardware: []\nmodels: [a]\n", "c.yaml:2:11: hardware: found an empty list, expected one or more"},
		{"no degrees", minimal + "tps: []\n", "c.yaml:4:6: tps: found an empty list"},
		{"a folder's name", "driver: vllm\nhardware: [../x]\nmodels: [a]\n", `c.yaml:2:12: hardware[0]: found "../x", expected letters`},
		{"unknown key within", "driver: vllm\nmodels: [a]\nhardware:\n  - nme: x\n", "c.yaml:4:5: hardware[0].nme: unknown key"},
		{"no name", "driver: vllm\nmodels: [a]\nhardware:\n  - slurm: {}\n", "c.yaml:4:5: hardware[0].name: is missing"},
		{"same twice", "driver: vllm\nhardware: [H200]\nmodels:\n  - a\n  - id: a\n", `c.yaml:5:5: models[1]: "a" stands twice`},
		{"flag", minimal + "flags:\n  iteration: 3\n", "c.yaml:5:3: flags.iteration: unknown flag"},
		{"flag's value", minimal + "flags: {iterations: many}\n", `c.yaml:4:9: flags.iterations: found "many", expected a number`},
		{"reserved flag", minimal + "flags: {shard: 0/2}\n", "c.yaml:4:9: flags.shard: a campaign says this"},
		{"flag twice", minimal + "plan: lean\nflags: {plan: full}\n", "plan stands twice"},
		{"flag without value", minimal + "flags: {only: }\n", "c.yaml:4:15: flags.only: found no value"},
		{"budget", minimal + "budget: 4 hours\n", `c.yaml:4:9: budget: found "4 hours", expected a time`},
		{"shards", minimal + "shards: 0\n", `c.yaml:4:9: shards: found "0", expected a whole number from 1`},
		{"tps", minimal + "tps: [1, 0]\n", `c.yaml:4:10: tps[1]: found "0"`},
		{"tp twice", minimal + "tps: [2, 2]\n", "c.yaml:4:10: tps[1]: 2 stands twice"},
		{"sbatch option", minimal + "slurm: {-p: all}\n", `c.yaml:4:9: slurm.-p: found "-p", expected a long option`},
		{"array", minimal + "slurm: {array: 1-3}\n", "c.yaml:4:9: slurm.array: the campaign says this"},
		{"line end in an option", minimal + "slurm: {comment: \"a\\nb\"}\n", "c.yaml:4:18: slurm.comment: found a line end"},
		{"mount", minimal + "kubernetes: {mount: here}\n", `c.yaml:4:21: kubernetes.mount: found "here", expected an absolute`},
		{"engine argument", minimal + "engine-args: {a: \"b,c\"}\n", "c.yaml:4:18: engine-args.a: found"},
		{"exclude", minimal + "exclude: [{}]\n", "c.yaml:4:11: exclude[0]: found no name"},
		{"exclude of nothing", minimal + "variants: [x, y]\nexclude:\n  - {model: a/b, variant: x}\n  - {model: A/b}\n", "c.yaml:7:5: exclude[1]: matches no bundle"},
		{"exclude of an unnamed variant", minimal + "exclude: [{variant: bf16}]\n", "c.yaml:4:11: exclude[0]: matches no bundle"},
		{"exclude of all", minimal + "exclude: [{model: a/b}]\n", "c.yaml:4:10: exclude: leaves no bundle"},
		{"alias", "driver: vllm\nhardware: &h [H200]\nmodels: *h\n", "c.yaml:3:9: models: found an alias"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("c.yaml", []byte(test.text), checkFlag)
			var problem *perfio.ParseError
			if err == nil || !strings.Contains(err.Error(), test.want) || !errors.As(err, &problem) || problem.File != "c.yaml" {
				t.Errorf("%v, expected %s", err, test.want)
			}
		})
	}
	if _, err := Parse("c.yaml", []byte(minimal), checkFlag); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(minimal))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("c.yaml", data, checkFlag)
		if err != nil {
			var problem *perfio.ParseError
			if !errors.As(err, &problem) {
				t.Errorf("%T: %v", err, err)
			}
			return
		}
		c.Shards = min(c.Shards, 20)
		for _, target := range Targets {
			files, err := c.Emit(target, c.Jobs())
			for _, file := range files {
				if err == nil && file.Executable && strings.Contains(file.Name, "/") {
					t.Errorf("%s: %q", target, file.Name)
				}
			}
		}
	})
}

// Whatever a campaign says arrives as it is: scripts are run with a program
// that prints its arguments.
func TestQuoting(t *testing.T) {
	for _, value := range []string{"plain", "a b", "it's", `"$HOME" \n`, "$(x) `y` ;|&", "%s %d"} {
		c := mustParse(t, minimal+"program: printf\nshards: 1\n")
		job := c.Jobs()[0]
		job.Flags = append(job.Flags, Option{Name: "only", Value: value})
		files, err := c.Emit(ShellTarget, []*Job{job})
		if err != nil {
			t.Fatal(err)
		}
		script := strings.Replace(files[0].Text, "printf run", `printf '%s\n'`, 1)
		out, err := exec.Command("sh", "-c", script).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "\n--only="+value+"\n") {
			t.Errorf("%q: %v, %s", value, err, out)
		}
	}
}

func TestSlurmScript(t *testing.T) {
	c := mustParse(t, example)
	files, err := c.Emit(SlurmTarget, c.Jobs())
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %d files", err, len(files))
	}
	h100 := files[1]
	for _, want := range []string{
		"#SBATCH --array=0-5%2\n", "#SBATCH --partition=h100\n", "#SBATCH --account=team\n", "#SBATCH --exclusive\n", "#SBATCH --time=4:30:00\n",
		"#SBATCH --requeue\n", "\n5) set -- run --model models/mine/config.json ",
	} {
		if !strings.Contains(h100.Text, want) {
			t.Errorf("%s lacks %q:\n%s", h100.Name, want, h100.Text)
		}
	}
	if strings.Contains(h100.Text, "partition=all") || !strings.Contains(files[0].Text, "partition=all") {
		t.Error("a hardware's options do not win over the campaign's")
	}
	// More shards than an array takes are several arrays.
	job := c.Jobs()[0]
	job.SetShards(2*maxArray + 5)
	files, err = c.Emit(SlurmTarget, []*Job{job})
	if err != nil || len(files) != 4 || !strings.Contains(files[2].Text, "--array=0-4%2\n") || !strings.Contains(files[2].Text, "--shard 2004/2005") {
		t.Errorf("%v, %d files", err, len(files))
	}
	// What is measured is left out.
	job.SetShards(4)
	job.Needed = []int{1, 3}
	files, _ = c.Emit(SlurmTarget, []*Job{job})
	if text := files[0].Text; !strings.Contains(text, "--array=0-1%2") || !strings.Contains(text, "--shard 3/4") || strings.Contains(text, "--shard 0/4") {
		t.Errorf("%s", text)
	}
	job.Needed = nil
	if files, _ = c.Emit(SlurmTarget, []*Job{job}); len(files) != 1 {
		t.Errorf("%d files where nothing is left", len(files))
	}
}

// The script's end: who is asked to end gets on, who is killed is requeued, up
// to the number of attempts, and what says that something is wrong stays.
func TestSlurmScriptEnds(t *testing.T) {
	c := mustParse(t, minimal+"attempts: 3\nprogram: ./program\n")
	files, err := c.Emit(SlurmTarget, c.Jobs())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		program  string
		restarts string
		status   int
		requeued bool
	}{
		{"exit 0", "", 0, false}, {"exit 1", "", 1, false}, {"exit 2", "", 2, false}, {"exit 4", "", 4, false},
		{"exit 3", "", 3, true}, {"exit 3", "1", 3, true}, {"exit 3", "2", 3, false}, // the third start of three
		{"kill -9 $$", "", 137, true},
		// A signal to the script alone, as at the end of its time: the program gets it.
		{"trap 'exit 3' USR1; kill -USR1 $PPID; while :; do sleep 0.05; done", "", 3, true},
		{"trap 'exit 3' USR1; kill -TERM $PPID; while :; do sleep 0.05; done", "", 3, true},
		{"trap 'sleep 0.3; exit 3' USR1; kill -TERM $PPID; kill -USR1 $PPID; while :; do sleep 0.05; done", "", 3, true},
		{"trap 'exit 0' USR1; kill -USR1 $PPID; while :; do sleep 0.05; done", "", 0, false},
	} {
		dir := t.TempDir()
		write(t, dir, "program", "#!/bin/bash\n"+test.program+"\n")
		write(t, dir, "scontrol", "#!/bin/sh\necho \"$@\" >requeued\n")
		write(t, dir, "script", files[0].Text)
		cmd := exec.Command("bash", "script")
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin", "SLURM_ARRAY_TASK_ID=0", "SLURM_JOB_ID=77"}
		if test.restarts != "" {
			cmd.Env = append(cmd.Env, "SLURM_RESTART_COUNT="+test.restarts)
		}
		cmd.WaitDelay = 10 * time.Second
		out, _ := cmd.CombinedOutput() // its status is looked at below
		requeued := read(dir, "requeued")
		if status := cmd.ProcessState.ExitCode(); status != test.status || (requeued == "requeue 77\n") != test.requeued {
			t.Errorf("%s, %s restarts: status %d, requeued %q, expected %d, %v: %s", test.program, test.restarts, status, requeued, test.status, test.requeued, out)
		}
	}
}

func TestKubernetesManifest(t *testing.T) {
	c := mustParse(t, example)
	files, err := c.Emit(KubernetesTarget, c.Jobs())
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %d files", err, len(files))
	}
	decoder := yaml.NewDecoder(strings.NewReader(files[0].Text))
	var kinds []string
	for {
		var object struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     struct {
				Completions, Parallelism int
				CompletionMode           string `yaml:"completionMode"`
				Template                 struct {
					Spec struct {
						Grace        int               `yaml:"terminationGracePeriodSeconds"`
						NodeSelector map[string]string `yaml:"nodeSelector"`
						Containers   []struct {
							Args      []string
							Resources struct{ Limits map[string]int }
						}
					}
				}
			}
		}
		if decoder.Decode(&object) != nil {
			break
		}
		kinds = append(kinds, object.Kind+" "+object.Metadata.Name)
		if object.Kind != "Job" {
			continue
		}
		pod := object.Spec.Template.Spec
		args := pod.Containers[0].Args
		if object.Spec.Completions != 3 || object.Spec.Parallelism != 2 || object.Spec.CompletionMode != "Indexed" || pod.Grace != 90 ||
			pod.NodeSelector["gpu"] != "H200" || pod.Containers[0].Resources.Limits["nvidia.com/gpu"] != 1 || args[len(args)-1] != "$(JOB_COMPLETION_INDEX)/3" {
			t.Errorf("%+v", object)
		}
	}
	want := []string{
		"PersistentVolumeClaim autumn", "Job autumn-h200-llama-3-1-8b-bf16", "Job autumn-h200-llama-3-1-8b-bf16-kvfp8",
		"Job autumn-h200-mine-bf16", "Job autumn-h200-mine-bf16-kvfp8",
	}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	bare := mustParse(t, minimal)
	if _, err := bare.Emit(KubernetesTarget, bare.Jobs()); err == nil || !strings.Contains(err.Error(), "kubernetes.image: is missing") {
		t.Errorf("no image: %v", err)
	}
	for out, want := range map[string]string{
		"perf": "", ".": "", "a/../b": "", "/shared/perf": "", "/shared": "",
		"/campaign/perf": "4:6", "../perf": "4:6", "/shared/../perf": "4:6", "/sharedness": "4:6",
	} {
		c := mustParse(t, minimal+"out: "+out+"\nkubernetes: {image: x, mount: /shared}\n")
		_, err := c.Emit(KubernetesTarget, c.Jobs())
		if want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), fmt.Sprintf("autumn.yaml:%s: out: found %q, expected a folder within /shared", want, out)) {
			t.Errorf("out %s: %v", out, err)
		}
	}
	pod := mustParse(t, minimal+"kubernetes: {image: x, pod: {restartPolicy: Always}}\n")
	if _, err := pod.Emit(KubernetesTarget, pod.Jobs()); err == nil || !strings.Contains(err.Error(), "autumn.yaml:4:30: kubernetes.pod.restartPolicy") {
		t.Errorf("a pod's key that is taken: %v", err)
	}
	for _, test := range []struct{ text, want string }{
		{"H200-Llama_3.1", "h200-llama-3-1"}, {"--x--", "x"}, {strings.Repeat("a", 60), strings.Repeat("a", 43) + "-"},
	} {
		if got := objectName(test.text); !strings.HasPrefix(got, test.want) || len(got) > 52 {
			t.Errorf("%q becomes %q, expected %q", test.text, got, test.want)
		}
	}
	if got := escaped([]string{"$HOME $(X)", "\x00/3"}); got[0] != "$$HOME $$(X)" || got[1] != "$(JOB_COMPLETION_INDEX)/3" {
		t.Errorf("%q", got)
	}
}

// Commands for all kinds of hardware are only those of all of them, and the
// pattern of a name is that name.
func TestHoldsAndPattern(t *testing.T) {
	c := mustParse(t, example)
	files, err := c.Emit(ShellTarget, c.Jobs())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, j := range c.Jobs() {
		all = append(all, j.Hardware.Name)
	}
	if !c.Holds(ShellTarget, all, files[0].Text) || c.Holds(ShellTarget, all[:1], files[0].Text) || c.Holds(SlurmTarget, all, files[0].Text) {
		t.Errorf("%v: wrong about whose jobs the commands are", all)
	}
	for _, name := range []string{"c[1", "c[1]", "a*b", "plain"} {
		c.Name = name
		if ok, err := path.Match(c.Pattern(SlurmTarget), name+"-H100.sbatch"); !ok || err != nil {
			t.Errorf("%s: %t, %v", name, ok, err)
		}
		if ok, _ := path.Match(c.Pattern(SlurmTarget), "c1-H100.sbatch"); ok {
			t.Errorf("%s: the pattern takes another's", name)
		}
	}
}
