package stepjudge_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/layerprof/layerprof/examples/serving/sim"
	"github.com/layerprof/layerprof/internal/servecheck"
	"github.com/layerprof/layerprof/internal/stepjudge"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

var h200 = filepath.Join("..", "..", "..", "shared", "reference", "h200")

const layers = 32

// h200Rows are what ships as the H200's step.csv. No H200 could be had to measure
// a step category on, so the host's line is that of the first third (by time) of
// the synchronous runs, and launches and forwards those of single whole steps,
// fired apart. What is left of those runs, and all of the asynchronous one, judges.
func h200Rows(t *testing.T) (rows []perfio.StepRow, rest map[string][]stepjudge.Step) {
	if _, err := os.Stat(h200); err != nil {
		t.Skip("no reference data beside the repository")
	}
	rest = make(map[string][]stepjudge.Step)
	for _, mode := range []string{"graph_sync", "graph_async", "eager_sync"} {
		steps, err := stepjudge.ReadSteps(filepath.Join(h200, "serving", "steps_Llama-3.1-8B_"+mode+".jsonl.gz"))
		if err != nil {
			t.Fatal(err)
		}
		rest[mode] = steps
		if mode == "graph_async" {
			continue
		}
		var first []stepjudge.Step
		first, rest[mode] = stepjudge.FirstShare(steps, 1./3)
		more, err := stepjudge.Rows(mode, layers, graphs(mode), first)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(append(rows, more...), category(t, mode)...)
	}
	return rows, rest
}

// graphs are the sizes of the H200's engine.
func graphs(mode string) (sizes []int) {
	if mode == "eager_sync" {
		return nil
	}
	sizes = []int{1, 2, 4}
	for n := 8; n <= 512; n += 8 {
		if n <= 256 || n%16 == 0 {
			sizes = append(sizes, n)
		}
	}
	return sizes
}

var update = flag.Bool("update", false, "write the H200's step.csv anew")

var h200Bundle = filepath.Join("..", "..", "perf", "H200", "meta-llama", "Llama-3.1-8B", "bf16")

func TestH200StepFile(t *testing.T) {
	rows, _ := h200Rows(t)
	var want bytes.Buffer
	if err := perfio.WriteStep(&want, rows); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(h200Bundle, "tp1", perfio.StepFile)
	if *update {
		if err := os.WriteFile(name, want.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s is not what the reference runs give", name)
	}
}

// bound are the largest errors, in percent, that a run may show: the documented
// figures and some room.
type bound struct {
	p50, p90, bias      float64 // of all steps
	ttft, tpot, latency float64
}

func judge(t *testing.T, table *traceloader.Table, o stepjudge.Options, steps []stepjudge.Step, kvBlocks int, requestsFile string, most bound) {
	t.Helper()
	mode := o.Steps.Mode
	if steps != nil {
		figures, err := stepjudge.CompareSteps(table, o, steps)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range figures {
			t.Logf("%s %-12s %5d steps: %.2f/%.2f/%.1f, bias %+.2f, total %+.2f; the run against itself %.2f/%.2f; sum of kernels %+.1f",
				mode, f.Kind, f.N, f.P50, f.P90, f.P99, f.Bias, f.Total, f.RepeatP50, f.RepeatP90, f.KernelsBiasPc)
			if f.Kind == stepjudge.KindAll && (f.P50 > most.p50 || f.P90 > most.p90 || math.Abs(f.Bias) > most.bias) {
				t.Errorf("%s: steps %.2f/%.2f, bias %+.2f, want at most %+v", mode, f.P50, f.P90, f.Bias, most)
			}
		}
	}
	requests, err := stepjudge.CompareRequests(table, o, limits(kvBlocks), requestsFile)
	if err != nil {
		t.Fatal(err)
	}
	if len(requests) != 3 {
		t.Fatalf("%d figures of requests", len(requests))
	}
	for i, f := range requests {
		t.Logf("%s %s: %.5f s for %.5f s, %+.2f%%; single requests %.1f/%.1f", mode, f.Name, f.Predicted, f.Measured, f.Error, f.P50, f.P90)
		if limit := []float64{most.ttft, most.tpot, most.latency}[i]; !(math.Abs(f.Error) <= limit) {
			t.Errorf("%s %s: %+.2f%%, want at most %g", mode, f.Name, f.Error, limit)
		}
	}
}

// Goals are 3, 8 and 1.5 for steps, 3 for requests. The eager run's host was
// disturbed for some seconds (the same batches take twice as long). In the
// asynchronous run, all of which judges, prefills wait for a host that pauses, and
// the first two requests for compilation.
func TestMeasuredH200(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute and more under the race detector")
	}
	_, rest := h200Rows(t)
	table, err := traceloader.Open(h200Bundle, traceloader.Options{Rules: traceloader.Accurate})
	if err != nil {
		t.Fatal(err)
	}
	for mode, most := range map[traceloader.StepMode]bound{
		traceloader.GraphSync:  {3, 8, 1.5, 4, 3, 3},
		traceloader.GraphAsync: {3, 8, 1.5, 12, 3.5, 3.5},
		traceloader.EagerSync:  {3.5, 27, 1.5, 5, 7.5, 7.5},
	} {
		o := stepjudge.Options{Steps: traceloader.StepOptions{Mode: mode}}
		list := filepath.Join(h200, "serving", "requests_Llama-3.1-8B_"+string(mode)+".csv")
		if mode != traceloader.GraphAsync {
			// Those of the time that terms are fitted on do not judge.
			o.SkipRequests = arrivedBefore(t, list, rest[string(mode)][0].StartUS)
		}
		judge(t, table, o, rest[string(mode)], 55917, list, most)
		// Which step an arrival falls into hangs on microseconds, and with it the mean
		// time to the first token: it wanders by a percent.
		lo, hi := math.Inf(1), math.Inf(-1)
		for seed := range uint64(20) {
			requests, err := stepjudge.CompareRequests(table, o, limits(55917), shifted(t, list, seed))
			if err != nil {
				t.Fatal(err)
			}
			lo, hi = min(lo, requests[0].Error), max(hi, requests[0].Error)
		}
		t.Logf("%s ttft: %+.2f to %+.2f%% with arrivals moved by up to 50 us", mode, lo, hi)
		if max(-lo, hi) > most.ttft {
			t.Errorf("%s ttft: %+.2f to %+.2f%%, want at most %g", mode, lo, hi, most.ttft)
		}
	}
}

// shifted is a list whose arrivals are moved by up to 50 us at random.
func shifted(t *testing.T, name string, seed uint64) string {
	t.Helper()
	list := readList(t, name)
	random := rand.New(rand.NewPCG(seed, 8))
	for _, q := range list {
		q.ArrivalNS = max(0, q.ArrivalNS+random.Int64N(100_001)-50_000)
	}
	out := filepath.Join(t.TempDir(), "shifted.csv")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join((&servecheck.Run{Requests: list}).WriteRequests(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	return out
}

func readList(t *testing.T, name string) []*sim.Request {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := sim.ReadRequests(name, f)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func limits(kvBlocks int) sim.Limits {
	return sim.Limits{MaxNumBatchedTokens: 2048, MaxNumSeqs: 256, BlockSize: 16, KVBlocks: kvBlocks}
}

// arrivedBefore counts the requests of a list that came before a time of its run.
func arrivedBefore(t *testing.T, name string, us float64) (n int) {
	t.Helper()
	list := readList(t, name)
	for _, q := range list {
		if float64(q.ArrivalNS)/1e3 < us {
			n++
		}
	}
	if n == 0 || n == len(list) {
		t.Fatalf("%d of %d requests came before %g us", n, len(list), us)
	}
	t.Logf("%s: %d of %d requests judge", filepath.Base(name), len(list)-n, len(list))
	return n
}

// An H100 whose steps were measured by this module, and what its server did
// minutes later. Its host wanders: the same decode steps of one run differ by
// 1.7/9 (graph_sync) to 4/26% (eager).
func TestMeasuredH100(t *testing.T) {
	table, err := traceloader.Open("../../perf/H100/meta-llama/Llama-3.1-8B/bf16", traceloader.Options{Rules: traceloader.Accurate})
	if err != nil {
		t.Fatal(err)
	}
	for mode, most := range map[traceloader.StepMode]bound{
		traceloader.GraphSync:  {ttft: 3, tpot: 3, latency: 3},
		traceloader.GraphAsync: {ttft: 13, tpot: 3, latency: 3},
		traceloader.EagerSync:  {ttft: 9, tpot: 5, latency: 5},
	} {
		list := "../../examples/serving/measured/H100_Llama-3.1-8B_" + string(mode) + ".csv"
		judge(t, table, stepjudge.Options{Steps: traceloader.StepOptions{Mode: mode}}, nil, 28793, list, most)
	}
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
		r := stepjudge.Row(mode, layers, graphs(mode), one.Requests)
		r.LaunchUS, r.DeviceForwardUS = one.HostUS["launch"], one.GPUUS["forward"]
		rows = append(rows, r)
	}
	if len(rows) == 0 || lines.Err() != nil {
		t.Fatalf("%d rows, %v", len(rows), lines.Err())
	}
	return rows
}
