package vllmdriver

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// servingTranscriptPath is a conversation with a real vLLM on its CPU engine:
// go test -run ServingTranscript -update, with LAYERPROF_VLLM_PYTHON.
const servingTranscriptPath = "testdata/serving.jsonl"

// converseServing is the driver's part of it.
func converseServing(t *testing.T, d *Driver) (modes []string, e *profile.ServingEngine, served *profile.Served) {
	t.Helper()
	modes, err := d.StepModes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e, err = d.BootServing(t.Context(), servingSpec(t, perfio.ModeEagerSync)); err != nil {
		t.Fatal(err)
	}
	at := func(n int) *int { return &n }
	w := profile.Workload{Name: "some", Seed: 1, Requests: []profile.WorkloadRequest{
		{PromptTokens: 600, OutputTokens: 6, AtStep: at(0)}, {PromptTokens: 20, OutputTokens: 3, AtStep: at(3)}, {PromptTokens: 1, OutputTokens: 1, AtStep: at(20)},
	}}
	if served, err = d.Serve(t.Context(), w, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.drop(d.client, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	return modes, e, served
}

// What a real engine said is read by the driver as it was meant.
func TestServingTranscript(t *testing.T) {
	path, err := filepath.Abs(servingTranscriptPath)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		recordServing(t, path)
	}
	d := newDriver(t, Options{Command: []string{os.Args[0], path}, Env: []string{roleVariable + "=player"}})
	modes, e, served := converseServing(t, d)
	if diff := cmp.Diff([]string{perfio.ModeEagerSync}, modes); diff != "" {
		t.Errorf("modes of a CPU engine (-want +got):\n%s", diff)
	}
	if e.Layers != 2 || e.AsyncScheduling || e.VLLMVersion != "0.32.0" || e.Limits.MaxNumBatchedTokens != 512 || e.Limits.MaxNumSeqs != 256 || e.CPU == "" ||
		e.ModelRunner == "" || e.GraphMode != "NONE" || len(e.CaptureSizes) != 0 {
		t.Errorf("found %+v", e)
	}
	// A prompt of 600 takes two steps of at most 512 tokens; the second request
	// comes with the fourth step; the third when nothing is left to do.
	var batches [][]perfio.Request
	for i := range served.Steps {
		s := &served.Steps[i]
		batches = append(batches, s.Requests)
		if s.DeviceMarksUS != nil || s.Graph != perfio.GraphNone || s.PaddedTokens < len(s.Requests) {
			t.Errorf("step %d: %+v", i, s)
		}
	}
	want := [][]perfio.Request{
		{{NewTokens: 512}}, {{NewTokens: 88, KVHistory: 512}}, {{NewTokens: 1, KVHistory: 600}},
		{{NewTokens: 1, KVHistory: 601}, {NewTokens: 20}}, {{NewTokens: 1, KVHistory: 602}, {NewTokens: 1, KVHistory: 20}},
		{{NewTokens: 1, KVHistory: 603}, {NewTokens: 1, KVHistory: 21}}, {{NewTokens: 1, KVHistory: 604}}, {{NewTokens: 1}},
	}
	if diff := cmp.Diff(want, batches); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
	rows := profile.StepRows(perfio.ModeEagerSync, e.Layers, served.Steps)
	if len(rows) == 0 {
		t.Fatal("no rows come of it")
	}
	for _, r := range rows {
		sum := r.ScheduleUS + r.DispatchUS + r.PrepareUS + r.LaunchUS + r.AfterUS + r.SampleUS + r.WaitUS + r.UpdateUS + r.ReturnUS + r.BetweenUS
		if r.Steps == 1 && !(sum > 0.999*r.StepUS && sum < 1.001*r.StepUS) {
			t.Errorf("the parts make up %v of %v us", sum, r.StepUS)
		}
	}
}

func recordServing(t *testing.T, path string) {
	main, err := filepath.Abs("worker/main.py")
	if err != nil {
		t.Fatal(err)
	}
	command := []string{os.Args[0], path, vllmPython(t), main}
	d := newDriver(t, Options{Command: command, Env: []string{roleVariable + "=player", "PYTHONDONTWRITEBYTECODE=1"}})
	converseServing(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	lines, err := readTranscript(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for _, l := range lines {
		var v any
		if err := json.Unmarshal(l.Line, &v); err != nil {
			t.Fatal(err)
		}
		if l.Line, err = json.Marshal(withoutPlaces(v)); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, text...), '\n')
	}
	if err := os.WriteFile(path, out, 0o666); err != nil {
		t.Fatal(err)
	}
	t.Logf("recorded %s", path)
}

// withoutPlaces takes the recording machine's paths and surroundings out.
func withoutPlaces(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			switch k {
			case "environment":
				v[k] = map[string]any{}
			case "kernel":
				v[k] = "…"
			}
			v[k] = withoutPlaces(v[k])
		}
	case []any:
		for i := range v {
			v[i] = withoutPlaces(v[i])
		}
	case string:
		if strings.Contains(v, "/") && (strings.HasPrefix(v, "/") || strings.Contains(v, " /") || strings.Contains(v, ":/")) {
			return "…"
		}
	}
	return v
}
