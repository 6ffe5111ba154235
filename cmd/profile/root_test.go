package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/profile"
)

// result is what a command left behind.
type result struct {
	status         int
	stdout, stderr string
}

// runCommand runs the program in this process.
func runCommand(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
	return result{status, stdout.String(), stderr.String()}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args   string
		status int
		stderr string
	}{
		{"", exitUsage, "no command given"},
		{"-h", exitOK, ""},
		{"plan -h", exitOK, ""},
		{"nope", exitUsage, "nope"},
		{"plan --bogus", exitUsage, "bogus"},
		{"plan extra", exitUsage, "extra"},
		{"plan --order sideways", exitUsage, "order"},
		{"plan --lines 5", exitUsage, "no --from-bundle"},
		{"plan --lines=", exitUsage, "no --from-bundle"},
		{"plan --from-bundle ../../examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16 --tp 1 --only dense --lines=", exitUsage, "expected lines from 2 on"},
		{"plan --from-bundle ../../examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16 --lines 5", exitUsage, "expected one table and one degree"},
		{"plan --from-bundle ../../examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16 --only dense --lines 1", exitUsage, "expected lines from 2 on"},
		{"plan --from-bundle ../../examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16 --only dense --lines 7-5", exitUsage, "expected lines from 2 on"},
		{"plan --from-bundle ../../examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16 --only dense --lines 2,99999", exitUsage, "found line 99999, tp1/dense.csv"},
		{"plan --from-bundle ../../examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16 --only step --lines 2", exitUsage, "expected dense, per_sequence"},
		{"plan --attention-kv-factor 1", exitUsage, "attention-kv-factor"},
		{"plan --attention-kv-factor 0", exitUsage, "attention-kv-factor"},
		{"plan --max-num-seqs 0", exitUsage, "max-num-seqs: found 0"},
		{"plan --only attenton", exitUsage, "attenton"},
		{"plan --config /does/not/exist", exitUsage, "config: open /does/not/exist"},
	} {
		got := runCommand(t, strings.Fields(test.args)...)
		if got.status != test.status || !strings.Contains(got.stderr, test.stderr) {
			t.Errorf("profile %s: status %d and %q, expected %d and %q", test.args, got.status, got.stderr, test.status, test.stderr)
		}
		if test.status != exitOK && got.stdout != "" {
			t.Errorf("profile %s: an error, and %q on standard output", test.args, got.stdout)
		}
	}
}

func TestConfig(t *testing.T) {
	path := writeFile(t, "profile.yaml", "tp: [1, 2]\nmax-num-seqs: 16\nonly: [attention, dense]\nskip-skew: true\nengine-arg:\n  a: 1\n  b: x\n")
	cmd := newPlanCommand(&app{})
	f := addedFlags(t, cmd, path)
	if len(f.TPs) != 2 || f.MaxNumSeqs != 16 || len(f.Only) != 2 || !f.SkipSkew || f.EngineArgs["b"] != "x" {
		t.Errorf("flags from the file: %+v", f)
	}

	// The command line wins, also over a list.
	got := runCommand(t, "plan", "--config", path, "--tp", "4", "--json")
	if got.status != exitOK || strings.Contains(got.stdout, `"tp":1`) || !strings.Contains(got.stdout, `"tp":4`) {
		t.Errorf("status %d, %s%s", got.status, got.stdout, got.stderr)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"unknown key", "tp: 1\nmax_num_seqs: 3\n", "profile.yaml:2:1: max_num_seqs: unknown key, expected the name of a flag (max-num-seqs?)"},
		{"twice", "tp: 1\ntp: 2\n", "profile.yaml:2:1: tp: stands twice"},
		{"not a number", "\nmax-num-seqs: many\n", "profile.yaml:2:1: max-num-seqs: "},
		{"no mapping", "- tp\n", "profile.yaml:1:1: found a list"},
		{"nested", "only: [[a]]\n", "profile.yaml:1:1: only: found a list"},
		{"no value", "model:\n", "profile.yaml:1:1: model: has no value"},
		{"not YAML", "tp: [1\n", "profile.yaml: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := runCommand(t, "plan", "--config", writeFile(t, "profile.yaml", test.text))
			if got.status != exitUsage || !strings.Contains(got.stderr, test.want) {
				t.Errorf("status %d, %q, expected %d and %q", got.status, got.stderr, exitUsage, test.want)
			}
		})
	}
	if got := runCommand(t, "plan", "--config", writeFile(t, "empty.yaml", "# nothing\n"), "--only", "dense"); got.status != exitOK {
		t.Errorf("empty file: status %d, %s", got.status, got.stderr)
	}
}

func TestShareRepeatsIsTheDriversUnlessGiven(t *testing.T) {
	for _, test := range []struct {
		args   []string
		driver bool
		want   bool
	}{
		{nil, true, true}, {nil, false, false},
		{[]string{"--share-repeats"}, false, true}, {[]string{"--share-repeats=false"}, true, false},
	} {
		cmd := newPlanCommand(&app{})
		cmd.ResetFlags()
		f := addSweepFlags(cmd)
		if err := cmd.ParseFlags(test.args); err != nil {
			t.Fatal(err)
		}
		opts, err := f.planOptions(test.driver)
		if err != nil || opts.ShareRepeats != test.want {
			t.Errorf("%v, driver %v: %v (%v), expected %v", test.args, test.driver, opts.ShareRepeats, err, test.want)
		}
	}
	if _, err := (profile.PlanOptions{}).Filled(); err != nil {
		t.Errorf("zero options: %v", err)
	}
}

// addedFlags are a command's sweep flags after a config file has been applied.
func addedFlags(t *testing.T, cmd *cobra.Command, path string) *sweepFlags {
	t.Helper()
	cmd.ResetFlags()
	f := addSweepFlags(cmd)
	if err := applyConfig(cmd, path); err != nil {
		t.Fatal(err)
	}
	return f
}
