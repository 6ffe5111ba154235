package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/stepjudge"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

const measuredSteps = "../../perf/H100/meta-llama/Llama-3.1-8B/bf16"

// writeRun writes a run of an engine whose steps take what the bundle says,
// times a factor.
func writeRun(t *testing.T, mode traceloader.StepMode, factor float64) string {
	t.Helper()
	table, err := traceloader.Open(measuredSteps, traceloader.Options{})
	if err != nil {
		t.Fatal(err)
	}
	steps, err := table.Steps(1, traceloader.StepOptions{Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	clock := traceloader.NewStepClock(steps)
	var text strings.Builder
	var nowNS int64
	at := 0.0
	for i := range 60 {
		var batch []perfio.Request
		for k := range 12 {
			batch = append(batch, perfio.Request{NewTokens: 1, KVHistory: 200*k + i + 1})
		}
		if i%20 == 7 {
			batch = append(batch, perfio.Request{NewTokens: 300})
		}
		span, ok := clock.Submit(traceloader.NewBatch(batch), nowNS)
		if !ok {
			t.Fatal("no answer")
		}
		line, err := json.Marshal(map[string]any{"requests": batch, "start_us": at})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s\n", line)
		at += factor * float64(span.ReadyNS-nowNS) / 1e3
		nowNS = span.ReadyNS
	}
	name := filepath.Join(t.TempDir(), "steps.jsonl")
	if err := os.WriteFile(name, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestSteps(t *testing.T) {
	for _, mode := range []traceloader.StepMode{traceloader.GraphSync, traceloader.GraphAsync, traceloader.EagerSync} {
		for _, test := range []struct {
			factor, want float64 // the error in percent
			status       int
		}{{1, 0, exitOK}, {1.25, -20, exitProblems}} {
			each := filepath.Join(t.TempDir(), "each.csv")
			status, out, errs := call(t, "", "steps", "--bundle", measuredSteps, "--mode", string(mode), "--steps", writeRun(t, mode, test.factor), "--max-error", "3", "--each", each, "--json")
			if status != test.status {
				t.Fatalf("%s: status %d, want %d\n%s", mode, status, test.status, errs)
			}
			var report stepjudge.Report
			if err := json.Unmarshal([]byte(out), &report); err != nil {
				t.Fatal(err)
			}
			if report.Mode != string(mode) || len(report.Steps) != 3 || report.Steps[0].N != 57 || report.Steps[2].N != 3 {
				t.Fatalf("%+v", report)
			}
			for _, f := range report.Steps {
				if d := f.Bias - test.want; d < -0.1 || d > 0.1 {
					t.Errorf("%s, %s: bias %.2f%%, want %g", mode, f.Kind, f.Bias, test.want)
				}
			}
			file, err := os.Open(each)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			rows, err := csv.NewReader(file).ReadAll()
			if err != nil || len(rows) != 58 {
				t.Fatalf("%d rows, %v", len(rows), err)
			}
			column := func(row []string, name string) float64 {
				for i, c := range rows[0] {
					if c == name {
						x, _ := strconv.ParseFloat(row[i], 64)
						return x
					}
				}
				t.Fatalf("no column %s", name)
				return 0
			}
			for _, row := range rows[1:] {
				e := 100 * (column(row, "predicted_us")/column(row, "measured_us") - 1)
				if e-test.want > 0.2 || e-test.want < -0.2 || !(column(row, "kernels_us") > 1000) {
					t.Fatalf("%s: error %.2f%%, want %g: %v", mode, e, test.want, row)
				}
			}
		}
	}
}

func TestStepsRequests(t *testing.T) {
	list := "../../examples/serving/measured/H100_Llama-3.1-8B_graph_async.csv"
	status, out, errs := call(t, "", "steps", "--bundle", measuredSteps, "--mode", "graph_async", "--requests", list, "--kv-blocks", "28793")
	if status != exitOK || !strings.Contains(out, "latency          300") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	unmeasured := filepath.Join(t.TempDir(), "unmeasured.csv")
	if err := os.WriteFile(unmeasured, []byte("request,input_tokens,output_tokens,arrival_ns\na,20,7,0\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want int
		text string
	}{
		{[]string{}, exitUsage, "neither --steps nor --requests"},
		{[]string{"--steps", "absent.jsonl"}, exitFailed, "no such file"},
		{[]string{"--requests", list, "--mode", "fast"}, exitUsage, `"fast"`},
		{[]string{"--requests", list, "--mode", "eager_sync", "--tp", "4"}, exitFailed, "4"},
		// A judge that has nothing to judge does not pass.
		{[]string{"--requests", list, "--mode", "eager_sync", "--skip-requests", "300", "--max-error", "1"}, exitFailed, "found 300 requests, of which 300 are left out"},
		{[]string{"--requests", unmeasured, "--mode", "eager_sync", "--max-error", "1"}, exitFailed, "found no measured_ttft_s"},
		{[]string{"--requests", list, "--mode", "eager_sync", "--max-error", "nan"}, exitUsage, "--max-error: found NaN"},
		{[]string{"--requests", list, "--mode", "eager_sync", "--max-error", "-1"}, exitUsage, "--max-error: found -1"},
		{[]string{"--requests", list, "--mode", "eager_sync", "--each", filepath.Join(t.TempDir(), "each.csv")}, exitUsage, "--each without --steps"},
		{[]string{"--requests", list, "--mode", "eager_sync", "--skip-requests", "-1"}, exitUsage, "--skip-requests -1"},
		{[]string{"--requests", list, "--mode", "eager_sync", "--depth", "-3"}, exitUsage, "--depth: found -3"},
		{[]string{"--requests", list, "--mode", "eager_sync", "--kv-blocks", "-5"}, exitUsage, "--kv-blocks: found -5"},
		{[]string{"--requests", list, "--steps-from", measuredSteps}, exitUsage, "--steps-from without a --mode"},
	} {
		status, _, errs := call(t, "", append([]string{"steps", "--bundle", measuredSteps}, test.args...)...)
		if status != test.want || !strings.Contains(errs, test.text) {
			t.Errorf("%v: status %d, %q; want %d and %q", test.args, status, errs, test.want, test.text)
		}
	}
}

// No step of a run need be left out.
func TestStepsSkipFirst(t *testing.T) {
	run := writeRun(t, traceloader.GraphSync, 1)
	for skip, want := range map[string]int{"0": 59, "1": 58, "2": 57} {
		status, out, errs := call(t, "", "steps", "--bundle", measuredSteps, "--mode", "graph_sync", "--steps", run, "--skip-first", skip, "--json")
		var report stepjudge.Report
		if err := json.Unmarshal([]byte(out), &report); err != nil || status != exitOK {
			t.Fatalf("status %d, %v: %s", status, err, errs)
		}
		if n := report.Steps[0].N; n != want {
			t.Errorf("--skip-first %s: %d steps, want %d", skip, n, want)
		}
	}
}

// A sum of layers says that it is one, however it is asked for, and carries an
// error.
func TestQueryKernels(t *testing.T) {
	const (
		batch  = `{"requests":[[1,900],[1,40],[512,0]]}` + "\n"
		bundle = "../../examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16"
	)
	for _, test := range []struct {
		args        []string
		mode, asked string // of the parts; "": none
		least, most float64
		text        string
	}{
		{[]string{"--mode", "graph_sync", "--lenient"}, "kernels", "graph_sync", 0.2, 1, "a sum of kernels: no steps of graph_sync were measured"},
		{[]string{"--mode", "graph_sync", "--lenient", "--rules", "accurate"}, "kernels", "graph_sync", 0.2, 1, "a sum of kernels: no steps of graph_sync were measured"},
		{[]string{"--depth", "16", "--rules", "accurate"}, "kernels", "", 0.005, 0.2, "a sum of kernels"},
		{[]string{"--rules", "accurate"}, "", "", 0.005, 0.2, " ns, sigma "},
		{[]string{}, "", "", 0, 0, "step of 32 blocks"}, // parity knows no errors
	} {
		args := append([]string{"query", "--bundle", bundle, "--shots", "-"}, test.args...)
		status, out, errs := call(t, batch, append(args, "--json")...)
		var answer shotAnswer
		if err := json.Unmarshal([]byte(out), &answer); err != nil || status != exitOK {
			t.Fatalf("%v: status %d, %v: %s", test.args, status, err, errs)
		}
		if !(answer.Sigma >= test.least && answer.Sigma <= test.most) {
			t.Errorf("%v: sigma %g, want %g to %g", test.args, answer.Sigma, test.least, test.most)
		}
		p := answer.Parts
		if (p != nil) != (test.mode != "") || p != nil && (p.Mode != test.mode || p.AskedMode != test.asked || !p.KernelsOnly || p.Sigma != answer.Sigma) {
			t.Errorf("%v: parts %+v", test.args, p)
		}
		if fallback := answer.Status == "fallback"; fallback != (test.asked != "") {
			t.Errorf("%v: status %s", test.args, answer.Status)
		}
		_, out, _ = call(t, batch, args...)
		if !strings.Contains(out, test.text) || strings.Contains(out, "bound by") || strings.Contains(out, "sigma 0.0%") {
			t.Errorf("%v: %s, want %q", test.args, out, test.text)
		}
	}
}

// Single lookups carry their errors where the rules know them.
func TestQuerySigma(t *testing.T) {
	moe := "../../perf/H200/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16"
	for _, lookup := range [][]string{{"moe", "100", "40"}, {"dense", "qkv_proj", "100"}, {"attention", "0", "0", "8", "512"}} {
		args := append([]string{"query", "--bundle", moe, "--rules", "accurate"}, lookup...)
		status, out, errs := call(t, "", append(args, "--json")...)
		var answer struct {
			Sigma float64 `json:"sigma"`
		}
		if err := json.Unmarshal([]byte(out), &answer); err != nil || status != exitOK || !(answer.Sigma > 0 && answer.Sigma < 0.5) {
			t.Errorf("%v: status %d, %v, %s%s", lookup, status, err, out, errs)
		}
		if _, out, _ := call(t, "", append(args, "--status")...); !strings.Contains(out, ", sigma ") {
			t.Errorf("%v: %s", lookup, out)
		}
	}
	for _, flag := range [][]string{{"--mode", "eager_sync"}, {"--depth", "3"}, {"--steps-from", measuredSteps}} {
		args := append([]string{"query", "--bundle", moe, "attention", "0", "0", "8", "512"}, flag...)
		if status, _, errs := call(t, "", args...); status != exitUsage || !strings.Contains(errs, flag[0]+" without --shots") {
			t.Errorf("%v: status %d, %s", flag, status, errs)
		}
	}
	rows := "tp,lookup,layer,a,b,c,d,e,f,latency_ns\n1,moe,,100,40,,,,,\n"
	if _, out, _ := call(t, rows, "query", "--bundle", moe, "--rules", "accurate", "--batch", "-", "--status"); !strings.Contains(out, ",interpolated,0.") || !strings.Contains(out, ",status,sigma\n") {
		t.Error(out)
	}
}

// A batch as a step of an engine: its parts add up to it.
func TestQueryStep(t *testing.T) {
	const batch = `{"requests":[[1,512],[1,512]]}` + "\n"
	for _, mode := range perfio.StepModes() {
		status, out, errs := call(t, batch, "query", "--bundle", measuredSteps, "--shots", "-", "--mode", mode, "--json")
		if status != exitOK {
			t.Fatalf("%s: status %d: %s", mode, status, errs)
		}
		var answer shotAnswer
		if err := json.Unmarshal([]byte(out), &answer); err != nil {
			t.Fatal(err)
		}
		p := answer.Parts
		if p == nil || answer.StepNS == nil || p.Mode != mode || p.ForwardNS < p.LaunchNS || p.KernelsNS <= 0 {
			t.Fatalf("%s: %s", mode, out)
		}
		want := p.BeforeNS + p.ForwardNS + p.AfterNS
		if strings.HasSuffix(mode, "_async") {
			want = max(p.HostNS, p.DeviceNS)
		}
		if *answer.StepNS != want {
			t.Errorf("%s: %d ns, its parts make %d", mode, *answer.StepNS, want)
		}
		if borrowed := answer.Status == "borrowed"; borrowed != (mode == perfio.ModeEagerAsync) {
			t.Errorf("%s: status %s", mode, answer.Status)
		}
	}
	// Another model's bundle, with the host of this one, and half as deep.
	one := func(args ...string) (a shotAnswer) {
		status, out, errs := call(t, batch, append([]string{"query", "--shots", "-", "--json"}, args...)...)
		if status != exitOK {
			t.Fatalf("%v: status %d: %s", args, status, errs)
		}
		if err := json.Unmarshal([]byte(out), &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	qwen := "../../perf/H200/Qwen/Qwen3-32B/bf16"
	if status, _, errs := call(t, batch, "query", "--bundle", qwen, "--shots", "-", "--mode", "graph_async"); status != exitFailed || !strings.Contains(errs, "was not measured") {
		t.Errorf("a bundle without step.csv: status %d, %s", status, errs)
	}
	whole := one("--bundle", qwen, "--mode", "eager_sync", "--steps-from", measuredSteps)
	half := one("--bundle", qwen, "--mode", "eager_sync", "--steps-from", measuredSteps, "--depth", "32")
	if !(*half.StepNS < *whole.StepNS) || half.Status != "borrowed" {
		t.Errorf("64 blocks %d ns, 32 blocks %d ns, %s", *whole.StepNS, *half.StepNS, half.Status)
	}
}
