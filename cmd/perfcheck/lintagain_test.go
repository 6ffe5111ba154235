package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

const (
	againBundle = "perf/H200/meta-llama/Llama-3.1-8B/bf16"
	againRun    = "profile run --driver roofline --hardware H200 --model meta-llama/Llama-3.1-8B --max-num-batched-tokens 256 --max-num-seqs 16 --attention-max-kv 2048 --out perf"
)

func programsFolder(t *testing.T) string {
	t.Helper()
	program, _ := programs(t)
	return filepath.Dir(program)
}

// shell runs a command in a folder with the programs of bin, and returns what it
// printed.
func shell(t *testing.T, bin, dir, command string) string {
	t.Helper()
	cmd := exec.Command("sh", "-ec", command)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// Where buckets have too few rows, lint's command measures cases that are new, as
// often as it is given, and none is given where there are none.
func TestLintFewSamplesAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("builds two programs and runs them many times, which go test without -short does")
	}
	bin, dir := programsFolder(t), t.TempDir()
	shell(t, bin, dir, againRun+" --attention-chunk-factor 16 --attention-kv-factor 16 --skew-n-factor 16 --skew-pc-factor 16 --skew-kp-factor 16")
	t.Chdir(dir)
	cases, runs := len(readAll(t, againBundle).TPs[0].Skew), 0
	for ; ; runs++ {
		// A fit none of whose buckets has enough.
		b := readAll(t, againBundle)
		for i := range b.TPs[0].SkewFit {
			b.TPs[0].SkewFit[i].Alpha, b.TPs[0].SkewFit[i].NSamples = 9, 1
		}
		if err := perfio.WriteTP(againBundle, &b.TPs[0]); err != nil {
			t.Fatal(err)
		}
		_, stdout, stderr := call(t, "", "lint", "--json", againBundle)
		again, found := "", 0
		for _, line := range strings.Split(strings.TrimSpace(stdout), "\n") {
			var f lintLine
			if err := json.Unmarshal([]byte(line), &f); err != nil {
				t.Fatalf("%v in %q%s", err, line, stderr)
			}
			if f.Rule == "few-samples" {
				found++
				again = f.Again
			}
		}
		if found == 0 {
			t.Fatalf("few-samples was not found: %s", stdout)
		}
		if again == "" || runs == 10 {
			break
		}
		t.Log(again)
		out := shell(t, bin, dir, again)
		now := len(readAll(t, againBundle).TPs[0].Skew)
		if now <= cases || strings.Contains(out, " 0 shots measured") {
			t.Errorf("%d cases, %d before: %s", now, cases, out)
		}
		cases = now
	}
	if runs < 2 || runs == 10 {
		t.Errorf("%d commands, expected a few", runs)
	}
}

// The command that lint prints beside a finding mends it: each fault is planted
// in a small bundle, the command is run as it stands, and the bundle it leaves
// has no finding and the rows that it had before.
func TestLintAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("builds two programs and runs them many times, which go test without -short does")
	}
	bin := programsFolder(t)
	shell := func(dir, command string) { shell(t, bin, dir, command) }
	const bundle, run = againBundle, againRun
	base := map[string]string{"full": t.TempDir(), "lean": t.TempDir(), "prefill first": t.TempDir()}
	shell(base["full"], run+" --tp 1,2 --skip-skew")
	shell(base["lean"], run+" --plan lean --random-batches -1")
	shell(base["prefill first"], run+" --order prefill-first --iterations 2 --skew-n-factor 4")
	// edit changes the lines of a file that begin with a prefix; "" takes a line out.
	edit := func(file, prefix string, change func(line string) string) func(dir string) {
		return func(dir string) {
			name := filepath.Join(dir, bundle, file)
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			n := 0
			for _, line := range strings.SplitAfter(string(data), "\n") {
				if strings.HasPrefix(line, prefix) {
					n++
					line = change(line)
				}
				out.WriteString(line)
			}
			if n == 0 {
				t.Fatalf("%s: no line begins with %s", file, prefix)
			}
			if err := os.WriteFile(name, []byte(out.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone := func(string) string { return "" }
	ending := func(change func(time string) string) func(string) string {
		return func(line string) string {
			at := strings.LastIndex(line, ",")
			return line[:at+1] + change(strings.TrimRight(line[at+1:], "\r\n")) + "\r\n"
		}
	}
	fast := ending(func(string) string { return "0.5" })
	slow := ending(func(time string) string { return "9" + time })
	both := func(changes ...func(string)) func(string) {
		return func(dir string) {
			for _, change := range changes {
				change(dir)
			}
		}
	}
	noJournal := func(dir string) {
		if err := os.RemoveAll(filepath.Join(dir, bundle, ".journal")); err != nil {
			t.Fatal(err)
		}
	}
	pack := func(dir string) { shell(dir, "perfcheck pack "+bundle+" -o b.tar.zst && rm -r perf") }
	// As LLMServingSim's profiler leaves a bundle, but for the driver's name,
	// without which the command is not whole.
	base["sums"] = t.TempDir()
	shell(base["sums"], run+" --order prefill-first")
	sums := readAll(t, filepath.Join(base["sums"], bundle))
	for _, key := range []string{"order", "skew_statistic"} {
		sums.Meta.Delete(key)
	}
	for i := range sums.TPs {
		for j := range sums.TPs[i].Skew {
			row := &sums.TPs[i].Skew[j]
			row.TMeanUS, row.TMaxUS, row.TSkewUS = 3*row.TMeanUS, 3*row.TMaxUS, 3*row.TSkewUS
		}
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(base["sums"], bundle)), perfio.WriteBundle(filepath.Join(base["sums"], bundle), sums)); err != nil {
		t.Fatal(err)
	}
	lowMax := func(line string) string {
		fields := strings.Split(line, ",")
		fields[11] = "0.5" // t_max_us
		return strings.Join(fields, ",")
	}
	for _, test := range []struct {
		name, of, rule string
		plant          func(dir string)
		at             string // what lint is asked of, if not the bundle
	}{
		{name: "a row that failed", of: "full", rule: "spike", plant: edit("tp1/dense.csv", "down_proj,208,", fast)},
		{name: "a row that failed below empty lines", of: "full", rule: "spike", plant: both(edit("tp1/dense.csv", "down_proj,208,", fast), edit("tp1/dense.csv", "down_proj,1", func(line string) string { return line + "\r\n" }))},
		{name: "rows too fast", of: "full", rule: "too-fast", plant: edit("tp2/dense.csv", "gate_up_proj,2", fast)},
		{name: "units of a layer", of: "full", rule: "units", plant: edit("tp1/dense.csv", "o_proj,", ending(func(time string) string { return time + "e3" }))},
		{name: "an attention row", of: "full", rule: "attention-spike", plant: edit("tp1/attention.csv", "64,256,4,256,", slow)},
		{name: "another order", of: "prefill first", rule: "attention-spike", plant: edit("tp1/attention.csv", "64,256,4,256,", slow)},
		{name: "skew", of: "prefill first", rule: "t-max-below-mean", plant: edit("tp1/skew.csv", "mixed,8,", lowMax)},
		{name: "skew of sums", of: "sums", rule: "t-max-below-mean", plant: edit("tp1/skew.csv", "mixed,8,", lowMax)},
		{name: "a packed bundle", of: "full", rule: "spike", plant: both(edit("tp1/dense.csv", "down_proj,208,", fast), pack), at: "b.tar.zst"},
		{name: "a layer that is missing", of: "full", rule: "missing-layer", plant: edit("tp1/dense.csv", "qkv_proj,", gone)},
		{name: "a layer, no journal", of: "full", rule: "missing-layer", plant: both(edit("tp2/dense.csv", "qkv_proj,", gone), noJournal)},
		{name: "a regime", of: "full", rule: "coverage", plant: edit("tp1/attention.csv", "0,", gone)},
		{name: "long chunks, no journal", of: "full", rule: "coverage", plant: both(edit("tp1/attention.csv", "256,", gone), edit("tp1/attention.csv", "128,", gone), noJournal)},
		{name: "a lean plan, no journal", of: "lean", rule: "coverage", plant: both(edit("tp1/attention.csv", "0,", gone), noJournal)},
		{name: "a copy", of: "full", rule: "tp-copies", plant: edit("tp2/dense.csv", "layernorm,16,", slow)},
		{name: "a copy, no journal", of: "full", rule: "tp-copies", plant: both(edit("tp2/dense.csv", "layernorm,16,", slow), noJournal)},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			shell(dir, "cp -r "+filepath.Join(base[test.of], "perf")+" .")
			test.plant(dir)
			t.Chdir(dir)
			at := test.at
			if at == "" {
				at = bundle
			}
			_, stdout, stderr := call(t, "", "lint", "--json", at)
			again := ""
			for _, line := range strings.Split(strings.TrimSpace(stdout), "\n") {
				var f lintLine
				if err := json.Unmarshal([]byte(line), &f); err != nil {
					t.Fatalf("%v in %q%s", err, line, stderr)
				}
				if f.Rule == test.rule && again == "" {
					again = f.Again
				}
			}
			if again == "" {
				t.Fatalf("%s was not found: %s", test.rule, stdout)
			}
			t.Log(again)
			shell(dir, again)
			mended := bundle
			if strings.Contains(again, "MENDED") {
				mended = "MENDED"
			}
			if status, stdout, stderr := call(t, "", "lint", "--json", mended); status != exitOK && !onlyFewSamples(t, stdout) {
				t.Errorf("after it: %s%s", stdout, stderr)
			}
			want, got := readAll(t, filepath.Join(base[test.of], bundle)), readAll(t, mended)
			for i := range want.TPs {
				a, b := want.TPs[i], got.TPs[i]
				if !slices.Equal(a.Dense, b.Dense) || !slices.Equal(a.Attention, b.Attention) || !slices.Equal(a.PerSequence, b.PerSequence) || !slices.Equal(a.Skew, b.Skew) ||
					!slices.Equal(a.SkewFit, b.SkewFit) {
					t.Errorf("tp%d: other rows than before the fault", a.Degree)
				}
			}
		})
	}
}

// onlyFewSamples: a small sweep has buckets of few rows, fault or none.
func onlyFewSamples(t *testing.T, lines string) bool {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		var f lintLine
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		if f.Rule != "few-samples" {
			return false
		}
	}
	return true
}

func readAll(t *testing.T, dir string) *perfio.Bundle {
	t.Helper()
	b, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
