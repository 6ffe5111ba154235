package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func runProfile(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(""), &out, &errs)
	return status, out.String(), errs.String()
}

func exampleWorker(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("there is no python3 for the example worker")
	}
	path, err := filepath.Abs("../../examples/worker/worker.py")
	if err != nil {
		t.Fatal(err)
	}
	return "exec:python3 '" + path + "'"
}

func TestDrivers(t *testing.T) {
	status, out, _ := runProfile(t, "drivers", "--json")
	var list struct{ Drivers []driverInfo }
	if err := json.Unmarshal([]byte(out), &list); err != nil || status != 0 || len(list.Drivers) != 4 {
		t.Fatalf("status %d, %v, %s", status, err, out)
	}
	if status, out, _ := runProfile(t, "drivers"); status != 0 || strings.Count(out, "\n") != 4 {
		t.Errorf("status %d, %s", status, out)
	}
}

func TestProbe(t *testing.T) {
	worker := exampleWorker(t)
	status, out, stderr := runProfile(t, "probe", "--driver", worker, "--model", "meta-llama/Llama-3.1-8B", "--tp", "1,2", "--json")
	if status != 0 {
		t.Fatalf("status %d: %s", status, stderr)
	}
	var report probeReport
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	if report.Driver.Name != "exec" || report.Driver.Origin != "synthetic" || len(report.Engines) != 2 {
		t.Fatalf("found %+v", report)
	}
	e := report.Engines[1]
	if e.TP != 2 || e.Limits.MaxNumBatchedTokens != 2048 || e.Limits.MaxNumSeqs != 256 || len(e.Catalog) == 0 {
		t.Errorf("found %+v", e)
	}
	if status, out, _ := runProfile(t, "probe", "--driver", "roofline", "--hardware", "H100"); status != 0 || !strings.HasPrefix(out, "driver: roofline") {
		t.Errorf("status %d, %s", status, out)
	}
}

func TestProbeConformance(t *testing.T) {
	status, out, stderr := runProfile(t, "probe", "--driver", exampleWorker(t), "--conformance", "--json")
	var report struct {
		Checks []struct{ Name, Problem, Skipped string }
		Failed int
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || status != 0 || report.Failed != 0 || len(report.Checks) < 20 {
		t.Errorf("status %d, %v, %s%s", status, err, out, stderr)
	}
	// A worker that answers nothing right.
	wrong := `exec:sh -c 'while read -r line <&3; do echo "{\"id\":1,\"result\":{}}" >&4; done'`
	status, out, _ = runProfile(t, "probe", "--driver", wrong, "--conformance")
	if status != 1 || !strings.Contains(out, "FAIL  hello: protocol: hello: protocol: found 0, expected 1") {
		t.Errorf("status %d, %s", status, out)
	}
}

func TestProbeUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"probe"}, "driver: which one"},
		{[]string{"probe", "--driver", "no-such"}, "no-such"},
		{[]string{"probe", "--driver", "vllm:x"}, "expected vllm"},
		{[]string{"probe", "--driver", "exec:"}, "exec: found no command"},
		{[]string{"probe", "--driver", "exec:'a"}, "not closed"},
		{[]string{"probe", "--driver", "roofline", "--conformance"}, "expected a worker"},
	} {
		if status, _, stderr := runProfile(t, c.args...); status != exitUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: status %d, %q, expected %d and %q", c.args, status, stderr, exitUsage, c.want)
		}
	}
}

func TestSplitCommand(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
	}{
		{"./worker", []string{"./worker"}},
		{"  python3  w.py\t-x ", []string{"python3", "w.py", "-x"}},
		{`sh -c 'a "b" c' ""`, []string{"sh", "-c", `a "b" c`, ""}},
		{`"with blank"/x`, []string{"with blank/x"}},
	} {
		got, err := splitCommand(c.line)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: found %q, %v, expected %q", c.line, got, err, c.want)
		}
	}
}
