package stepjudge_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/layerprof/layerprof/examples/serving/sim"
	"github.com/layerprof/layerprof/internal/stepjudge"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

var h200 = filepath.Join("..", "..", "..", "shared", "reference", "h200")

// An H200 that served 300 requests in three modes. No H200 could be had to
// measure a step category on that day's host, so the host's line is fitted on the
// first third (by time) of the synchronous runs, and the forward on single whole
// steps measured apart; the rest of those runs, and all of the asynchronous one,
// judge.
func TestMeasuredH200(t *testing.T) {
	if _, err := os.Stat(h200); err != nil {
		t.Skip("no reference data beside the repository")
	}
	bundle, err := perfio.OpenBundle(filepath.Join("..", "..", "perf", "H200", "meta-llama", "Llama-3.1-8B", "bf16"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []perfio.StepRow
	rest := make(map[string][]stepjudge.Step)
	for _, mode := range []string{"graph_sync", "graph_async", "eager_sync"} {
		steps, err := stepjudge.ReadSteps(filepath.Join(h200, "serving", "steps_Llama-3.1-8B_"+mode+".jsonl.gz"))
		if err != nil {
			t.Fatal(err)
		}
		if mode == "graph_async" {
			rest[mode] = steps
			continue
		}
		cut := steps[0].StartUS + (steps[len(steps)-1].StartUS-steps[0].StartUS)/3
		for i := range steps[:len(steps)-1] {
			if steps[i].StartUS >= cut {
				rest[mode] = steps[i:]
				break
			}
			if i >= 2 && goesOn(steps[i+1].Requests) {
				r := row(mode, steps[i].Requests)
				r.StepUS = steps[i+1].StartUS - steps[i].StartUS
				rows = append(rows, r)
			}
		}
		rows = append(rows, category(t, mode)...)
	}
	for i := range bundle.TPs {
		if bundle.TPs[i].Degree == 1 {
			bundle.TPs[i].Steps = rows
		}
	}
	table, err := traceloader.New(bundle, traceloader.Options{Rules: traceloader.Accurate})
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"graph_sync", "graph_async", "eager_sync"} {
		figures, err := stepjudge.CompareSteps(table, stepjudge.Options{Steps: traceloader.StepOptions{Mode: traceloader.StepMode(mode)}}, rest[mode])
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range figures {
			t.Logf("%s %-12s %5d steps: %.2f/%.2f/%.1f, bias %+.2f, total %+.2f; the run against itself %.2f/%.2f; sum of kernels %+.1f",
				mode, f.Kind, f.N, f.P50, f.P90, f.P99, f.Bias, f.Total, f.RepeatP50, f.RepeatP90, f.KernelsBiasPc)
		}
		limits := sim.Limits{MaxNumBatchedTokens: 2048, MaxNumSeqs: 256, BlockSize: 16, KVBlocks: 55917}
		requests, err := stepjudge.CompareRequests(table, stepjudge.Options{Steps: traceloader.StepOptions{Mode: traceloader.StepMode(mode)}}, limits,
			filepath.Join(h200, "serving", "requests_Llama-3.1-8B_"+mode+".csv"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range requests {
			t.Logf("%s %s: %.5f s for %.5f s, %+.2f%%; single requests %.1f/%.1f", mode, f.Name, f.Predicted, f.Measured, f.Error, f.P50, f.P90)
		}
	}
}

func goesOn(requests []perfio.Request) bool {
	for _, q := range requests {
		if q.KVHistory > 0 {
			return true
		}
	}
	return false
}

// row is a step's batch, with no time.
func row(mode string, requests []perfio.Request) perfio.StepRow {
	nan := math.NaN()
	r := perfio.StepRow{
		Mode: mode, Layers: 32, Steps: 1, Graph: perfio.GraphNone,
		ScheduleUS: nan, DispatchUS: nan, PrepareUS: nan, LaunchUS: nan, AfterUS: nan, SampleUS: nan, WaitUS: nan, UpdateUS: nan,
		ReturnUS: nan, BetweenUS: nan, StepUS: nan, DeviceWaitUS: nan, DeviceForwardUS: nan, DeviceAfterUS: nan, DeviceStepUS: nan,
	}
	b := traceloader.NewBatch(requests)
	r.PaddedTokens, r.NDecode, r.NPrefill = b.Tokens, b.NDecode, b.Sequences-b.NDecode
	r.KVDecodeMean, r.KVDecodeMax, r.KVDecodeMin = float64(b.KVDecodeMean), b.KVDecodeMax, b.KVDecodeMin
	r.PrefillChunk, r.KVPrefill, r.Admitted = b.PrefillChunk, b.KVPrefill, b.Admitted()
	if mode == "graph_sync" && b.Tokens <= 512 {
		if r.Graph = perfio.GraphPiecewise; b.PrefillChunk == 0 {
			r.Graph = perfio.GraphFull
		}
	}
	return r
}

// category reads the whole steps that were fired alone; of their host's parts
// only the launch is that of a running server.
func category(t *testing.T, mode string) (rows []perfio.StepRow) {
	name := map[string]string{"graph_sync": "graph", "eager_sync": "eager"}[mode]
	file, err := os.Open(filepath.Join(h200, "serving", "step_category_Llama-3.1-8B_"+name+".jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one struct {
			Requests []perfio.Request   `json:"requests"`
			HostUS   map[string]float64 `json:"host_us"`
			GPUUS    map[string]float64 `json:"gpu_us"`
		}
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Fatal(err)
		}
		r := row(mode, one.Requests)
		r.LaunchUS, r.DeviceForwardUS = one.HostUS["launch"], one.GPUUS["forward"]
		rows = append(rows, r)
	}
	if len(rows) == 0 || lines.Err() != nil {
		t.Fatalf("%d rows, %v", len(rows), lines.Err())
	}
	return rows
}
