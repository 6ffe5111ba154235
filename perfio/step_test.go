package perfio_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

func TestStepRows(t *testing.T) {
	rows := []perfio.StepRow{
		{Mode: perfio.ModeGraphSync, Layers: 32, Graph: perfio.GraphFull, PaddedTokens: 8, NDecode: 7, KVDecodeMean: 503.25, KVDecodeMax: 510, KVDecodeMin: 500,
			Steps: 8, ScheduleUS: 40, StepUS: 6123.44, DeviceStepUS: math.NaN(), DeviceForwardUS: 0, Spread: 0.01234},
		{Mode: perfio.ModeEagerAsync, Layers: 2, PaddedTokens: 300, NPrefill: 1, PrefillChunk: 300, Admitted: 1, Finished: 2, Steps: 1},
	}
	var b bytes.Buffer
	if err := perfio.WriteStep(&b, rows); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	for i, want := range []string{
		"mode,layers,graph,padded_tokens,n_decode,kv_decode_mean,kv_decode_max,kv_decode_min,n_prefill,prefill_chunk,kv_prefill,admitted,finished,steps," +
			"schedule_us,dispatch_us,prepare_us,launch_us,after_us,sample_us,wait_us,update_us,return_us,between_us,step_us," +
			"device_wait_us,device_forward_us,device_after_us,device_step_us,spread",
		"graph_sync,32,FULL,8,7,503.2,510,500,0,0,0,0,0,8,40.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,6123.4,0.0,0.0,0.0,,0.0123",
	} {
		if lines[i] != want {
			t.Errorf("line %d:\n got %s\nwant %s", i+1, lines[i], want)
		}
	}
	read, ok := readAll(t, perfio.NewStepReader(bytes.NewReader(b.Bytes()), "step.csv"))
	if !ok || len(read) != 2 || !math.IsNaN(read[0].DeviceStepUS) || read[0].DeviceForwardUS != 0 || read[1].Graph != "" || read[1].Finished != 2 {
		t.Errorf("read again: %+v", read)
	}
	row := lines[1]
	for _, c := range []struct{ name, from, to, want string }{
		{"unknown mode", "graph_sync", "graph", `step.csv:2:1: mode: found "graph", expected graph_sync, graph_async, eager_sync, eager_async`},
		{"unknown graph", "FULL", "HALF", `step.csv:2:15: graph: found "HALF", expected FULL, PIECEWISE, NONE or nothing`},
		{"no step behind it", "0,0,8,40.0", "0,0,0,40.0", `step.csv:2:48: steps: found "0", expected an integer from 1 to 67108864`},
		{"a negative time", "6123.4", "-6123.4", `step.csv:2:91: step_us: found "-6123.4", expected a number from 0 to 1e+12, or nothing`},
		{"a mean beyond the longest", "503.2", "510.5", `step.csv:2:24: kv_decode_mean: found 510.5, expected a mean from 500 to 510`},
		{"histories of nobody", ",7,503.2", ",0,503.2", `step.csv:2:24: kv_decode_mean: found 503.2, expected 0 without decodes`},
		{"a chunk of nobody", "500,0,0,", "500,0,3,", `step.csv:2:40: prefill_chunk: found 3, expected the new tokens of 0 prefills`},
		{"admitted who is not there", "0,0,0,0,0,8", "0,0,0,8,0,8", `step.csv:2:44: admitted: found 8, expected at most the step's 7 requests`},
		{"no spread", ",0.0123", ",", `step.csv:2:111: spread: found nothing, expected a finite number from 0`},
	} {
		text := lines[0] + "\n" + strings.Replace(row, c.from, c.to, 1) + "\n"
		r := perfio.NewStepReader(strings.NewReader(text), "step.csv")
		if !r.Scan() {
			t.Fatal(r.Err())
		}
		if _, err := r.Record(); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	rows[0].KVDecodeMin = 505
	if err := perfio.WriteStep(&b, rows); err == nil || !strings.Contains(err.Error(), "kv_decode_mean: found 503.25, expected a mean from 505 to 510") {
		t.Errorf("a row that contradicts itself is written: %v", err)
	}
	rows[0].Mode, rows[0].KVDecodeMin = "graph", 500
	if err := perfio.WriteStep(&b, rows); err == nil || !strings.Contains(err.Error(), "mode") {
		t.Errorf("a row of an unknown mode is written: %v", err)
	}
}

func TestCaptureSizes(t *testing.T) {
	parse := func(text string) (*perfio.Meta, error) { return perfio.ParseMeta(strings.NewReader(text), "meta.yaml") }
	m, err := parse("steps: {per_tp: {1: {graph_sync: {capture_sizes: [1, 2, 4]}, eager_sync: {rows: 3}}}}\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := m.CaptureSizes(1, perfio.ModeGraphSync); len(got) != 3 || got[2] != 4 {
		t.Errorf("got %v", got)
	}
	for _, mode := range []string{perfio.ModeEagerSync, perfio.ModeGraphAsync} {
		if got := m.CaptureSizes(1, mode); got != nil {
			t.Errorf("%s: got %v", mode, got)
		}
	}
	for text, want := range map[string]string{
		"steps: {per_tp: {1: {graph_sync: {capture_sizes: [2, 1]}}}}\n": "meta.yaml:1:54: steps.per_tp.1.graph_sync.capture_sizes: found \"1\", expected ascending integers from 1",
		"steps: {per_tp: {1: {graph_sync: {capture_sizes: 7}}}}\n":      "meta.yaml:1:50: steps.per_tp.1.graph_sync.capture_sizes: found \"7\", expected a list of integers",
		"steps: {per_tp: [1]}\n": "meta.yaml:1:17: steps.per_tp: found a list, expected a mapping",
	} {
		if _, err := parse(text); err == nil || err.Error() != want {
			t.Errorf("%s got %v, want %s", text, err, want)
		}
	}
}
