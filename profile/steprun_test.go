package profile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

// servingDevice is a device whose engine serves requests: a step takes a fixed
// time and 10 us a request, and the host's parts are shares of it.
type servingDevice struct {
	*fakeDevice
	modes  []string
	memory int // layers that fit; 0: any number
	// fails breaks an engine at a workload, by its name and how often it was served.
	fails   func(mode, workload string, attempt int) error
	served  map[string]int
	boots   []string
	after   func(workload string) // once a workload was served
	refuses int                   // boots that fail for another reason
	// sync ignores async_scheduling.
	sync bool
}

func newServingDevice() *servingDevice {
	return &servingDevice{
		fakeDevice: newFakeDevice(), modes: []string{perfio.ModeGraphSync, perfio.ModeGraphAsync, perfio.ModeEagerSync}, served: make(map[string]int),
	}
}

func (d *servingDevice) open() (Driver, error) {
	d.opened++
	return &servingDriver{fakeDriver: fakeDriver{device: d.fakeDevice}, serving: d}, nil
}

type servingDriver struct {
	fakeDriver
	serving *servingDevice
	spec    *ServingSpec
}

func (d *servingDriver) StepModes(context.Context) ([]string, error) { return d.serving.modes, nil }

func (d *servingDriver) BootServing(_ context.Context, spec ServingSpec) (*ServingEngine, error) {
	if d.closed {
		return nil, errors.New("fake: BootServing after Close")
	}
	d.serving.boots = append(d.serving.boots, fmt.Sprintf("%s %d", spec.Mode, spec.Layers))
	if d.serving.refuses > 0 {
		d.serving.refuses--
		return nil, errors.New("fake: no boot")
	}
	if d.serving.memory > 0 && spec.Layers > d.serving.memory {
		return nil, fmt.Errorf("boot: %w", ErrOutOfMemory)
	}
	d.spec = &spec
	e := &ServingEngine{
		Engine: Engine{Limits: d.serving.limits, Fingerprint: map[string]string{"gpu": "FAKE-1", "release": d.serving.fingerprint["release"]}, Origin: Measured, GPU: "FAKE-1"},
		Layers: spec.Layers, AsyncScheduling: spec.Async() && !d.serving.sync, CPU: "a processor", BootSeconds: 12.34,
	}
	if !spec.Eager() {
		e.CaptureSizes, e.GraphMode = []int{1, 2, 4, 8}, "FULL_AND_PIECEWISE"
	}
	return e, nil
}

// Serve is a small continuous-batching scheduler without a KV cache.
func (d *servingDriver) Serve(_ context.Context, w Workload, _ func(int)) (*Served, error) {
	if d.spec == nil {
		return nil, errors.New("fake: Serve before BootServing")
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	dev := d.serving
	key := d.spec.Mode + " " + w.Name
	dev.served[key]++
	if dev.fails != nil {
		if err := dev.fails(d.spec.Mode, w.Name, dev.served[key]); err != nil {
			d.spec = nil
			return nil, err
		}
	}
	type running struct{ prompt, computed, left int }
	var active []*running
	out := new(Served)
	clock := 10.0
	next, finished := 0, 0
	for next < len(w.Requests) || len(active) > 0 {
		if w.Steps > 0 && len(out.Steps) == w.Steps {
			break
		}
		for next < len(w.Requests) && (len(active) == 0 || *w.Requests[next].AtStep <= len(out.Steps)) && len(active) < dev.limits.MaxNumSeqs {
			active = append(active, &running{prompt: w.Requests[next].PromptTokens, left: w.Requests[next].OutputTokens})
			next++
		}
		s := StepRecord{Finished: finished, Graph: perfio.GraphNone}
		budget := dev.limits.MaxNumBatchedTokens
		for _, q := range active {
			n := min(max(q.prompt-q.computed, 1), budget)
			if n == 0 {
				break
			}
			if q.computed == 0 {
				s.Admitted++
			}
			s.Requests = append(s.Requests, perfio.Request{NewTokens: n, KVHistory: q.computed})
			s.PaddedTokens += n
			budget -= n
			q.computed += n
			if q.computed >= q.prompt {
				q.left--
			}
		}
		took := 1000 + 10*float64(len(s.Requests))
		for i := range s.HostMarksUS {
			s.HostMarksUS[i] = math.Round(clock + took*float64(i)/16)
		}
		s.DeviceMarksUS = []float64{clock, clock + 100, clock + 700, clock + 800}
		clock += took
		out.Steps = append(out.Steps, s)
		before := len(active)
		active = slices.DeleteFunc(active, func(q *running) bool { return q.left <= 0 })
		finished = before - len(active)
	}
	if dev.after != nil {
		dev.after(w.Name)
	}
	return out, nil
}

func stepRunOptions(t *testing.T, d *servingDevice, o StepOptions) RunOptions {
	t.Helper()
	options := testOptions(t, d.fakeDevice, t.TempDir())
	options.Open = d.open
	options.Steps = &o
	options.Spec.Model.NumHiddenLayers = 32
	return options
}

func readSteps(t *testing.T, dir string) (string, *perfio.Bundle) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "tp1", perfio.StepFile))
	if err != nil {
		t.Fatal(err)
	}
	b, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), b
}

func TestStepsAlone(t *testing.T) {
	d := newServingDevice()
	options := stepRunOptions(t, d, StepOptions{Alone: true})
	report, err := Run(t.Context(), options)
	if err != nil || report.Partial() || report.Workloads != 12 || report.Measured != 0 || d.fakeDevice.boots != 0 {
		t.Fatalf("got %+v, %v, %d boots for shots", report, err, d.fakeDevice.boots)
	}
	if want := []string{"graph_sync 32", "graph_async 32", "eager_sync 32"}; !slices.Equal(d.boots, want) {
		t.Errorf("boots: got %v, want %v", d.boots, want)
	}
	if d.served["graph_sync warm"] != warmUps {
		t.Errorf("the warm-up was served %d times", d.served["graph_sync warm"])
	}
	text, b := readSteps(t, options.Dir)
	if got := b.Meta.Text("steps", "per_tp", "1", "graph_async", "async_scheduling"); got != "true" {
		t.Errorf("meta.yaml: async_scheduling: got %q", got)
	}
	if got := b.Meta.Text("steps", "per_tp", "1", "graph_sync", "graph_mode"); got != "FULL_AND_PIECEWISE" || b.Meta.GPU() != "FAKE-1" {
		t.Errorf("meta.yaml: graph_mode: got %q, gpu %q", got, b.Meta.GPU())
	}
	// Again: nothing is served, not even a boot.
	before := len(d.boots)
	report, err = Run(t.Context(), options)
	if err != nil || report.Workloads != 0 || report.ReusedWorkloads != 12 || len(d.boots) != before {
		t.Errorf("run again: got %+v, %v", report, err)
	}
	if again, _ := readSteps(t, options.Dir); again != text {
		t.Error("run again: step.csv differs")
	}
}

// Steps stand beside the tables of shots, in whatever order they are measured.
func TestStepsBesideShots(t *testing.T) {
	d := newServingDevice()
	options := stepRunOptions(t, d, StepOptions{Modes: []string{perfio.ModeEagerSync}})
	report, err := Run(t.Context(), options)
	if err != nil || report.Partial() || report.Workloads != 4 || report.Measured == 0 {
		t.Fatalf("got %+v, %v", report, err)
	}
	text, b := readSteps(t, options.Dir)
	if tp := b.TP(1); len(tp.Dense) == 0 || len(tp.Steps) == 0 {
		t.Fatalf("%d dense rows and %d steps", len(tp.Dense), len(tp.Steps))
	}
	// More shots leave the steps alone.
	options.Steps = nil
	options.Iterations = 4
	if _, err := Run(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	after, b := readSteps(t, options.Dir)
	if after != text || b.Meta.Get("steps", "per_tp", "1", "eager_sync") == nil {
		t.Error("a run of shots changed the steps")
	}
}

// A run that is killed, stopped or loses its engine goes on where it was, and its
// step.csv is that of a run in one go.
func TestStepsResume(t *testing.T) {
	whole := newServingDevice()
	options := stepRunOptions(t, whole, StepOptions{Alone: true})
	if _, err := Run(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	want, _ := readSteps(t, options.Dir)

	d := newServingDevice()
	options = stepRunOptions(t, d, StepOptions{Alone: true})
	stop := make(chan struct{})
	options.Stop = stop
	count := 0
	d.after = func(workload string) {
		if count++; count == 2*warmUps+6 {
			close(stop)
		}
	}
	report, err := Run(t.Context(), options)
	if err != nil || !report.Stopped || report.Workloads != 6 {
		t.Fatalf("stopped: got %+v, %v", report, err)
	}
	// The journal's last record is torn, as by kill -9 in the middle of a write.
	journal := filepath.Join(options.Dir, JournalDir, DefaultShard+".jsonl")
	data, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	// What follows it tells who watches, and a killed run has not written it.
	last := bytes.LastIndex(data, []byte(`{"k":"steps"`))
	last += bytes.IndexByte(data[last:], '\n') + 1
	if err := os.WriteFile(journal, data[:last-7], 0o666); err != nil {
		t.Fatal(err)
	}
	d.after, options.Stop = nil, nil
	lost := 0
	d.fails = func(mode, workload string, attempt int) error {
		if mode == perfio.ModeEagerSync && workload == "ladder" && lost == 0 {
			lost++
			return &EngineLostError{Index: -1, Err: errors.New("gone")}
		}
		return nil
	}
	report, err = Run(t.Context(), options)
	if err != nil || report.Partial() || report.ReusedWorkloads != 5 || report.Workloads != 7 {
		t.Fatalf("resumed: got %+v, %v", report, err)
	}
	if got, _ := readSteps(t, options.Dir); got != want {
		t.Error("step.csv of a run in parts differs from that of one in one go")
	}
}

func TestStepsDepths(t *testing.T) {
	d := newServingDevice()
	d.memory = 20
	options := stepRunOptions(t, d, StepOptions{Alone: true})
	report, err := Run(t.Context(), options)
	if err != nil || report.Partial() || report.Workloads != 24 {
		t.Fatalf("got %+v, %v", report, err)
	}
	if want := []string{"graph_sync 32", "graph_sync 16", "graph_sync 8", "graph_async 16", "graph_async 8", "eager_sync 16", "eager_sync 8"}; !slices.Equal(d.boots, want) {
		t.Errorf("boots: got %v, want %v", d.boots, want)
	}
	_, b := readSteps(t, options.Dir)
	depths := make(map[int]int)
	for _, row := range b.TP(1).Steps {
		depths[row.Layers]++
	}
	if len(depths) != 2 || depths[16] == 0 || depths[8] != depths[16] {
		t.Errorf("rows by depth: %v", depths)
	}
	// The next run knows that it does not fit.
	before := len(d.boots)
	if report, err = Run(t.Context(), options); err != nil || report.ReusedWorkloads != 24 || len(d.boots) != before {
		t.Errorf("run again: got %+v, %v, boots %v", report, err, d.boots[before:])
	}
	// A depth that is asked for is tried again: there may be room now.
	d.memory = 0
	options.Steps.Layers = []int{32}
	if report, err = Run(t.Context(), options); err != nil || report.Workloads != 12 || report.Partial() {
		t.Errorf("a depth asked for: got %+v, %v", report, err)
	}
}

// A boot that fails is tried once more, as a shot is.
func TestStepsBootFails(t *testing.T) {
	d := newServingDevice()
	d.refuses = 1
	options := stepRunOptions(t, d, StepOptions{Alone: true, Modes: []string{perfio.ModeEagerSync}})
	if report, err := Run(t.Context(), options); err != nil || report.Partial() || report.Workloads != 4 || len(d.boots) != 2 {
		t.Errorf("got %+v, %v, boots %v", report, err, d.boots)
	}
	d.refuses = 100
	options = stepRunOptions(t, d, StepOptions{Alone: true})
	report, err := Run(t.Context(), options)
	if err != nil || len(report.Failed) != 3 || !strings.Contains(report.Failed[0].Message, "no boot") {
		t.Errorf("got %+v, %v", report, err)
	}
}

// A mode that the engine does not have is set aside; the others are measured.
func TestStepsModeMissing(t *testing.T) {
	d := newServingDevice()
	d.sync = true
	options := stepRunOptions(t, d, StepOptions{Alone: true})
	report, err := Run(t.Context(), options)
	if err != nil || !report.Partial() || len(report.Failed) != 1 || report.Workloads != 8 ||
		!strings.Contains(report.Failed[0].Message, "async_scheduling") {
		t.Fatalf("got %+v, %v", report, err)
	}
	for _, row := range mustSteps(t, options.Dir) {
		if row.Mode == perfio.ModeGraphAsync {
			t.Fatal("rows of a mode that the engine did not take")
		}
	}
}

func mustSteps(t *testing.T, dir string) []perfio.StepRow {
	t.Helper()
	_, b := readSteps(t, dir)
	return b.TP(1).Steps
}

// An engine of another release does not mix its steps with earlier ones.
func TestStepsEnvironment(t *testing.T) {
	d := newServingDevice()
	d.fingerprint["release"] = "1"
	options := stepRunOptions(t, d, StepOptions{Alone: true, Modes: []string{perfio.ModeEagerSync}})
	stop := make(chan struct{})
	options.Stop = stop
	d.after = func(workload string) {
		if workload == "ladder" {
			close(stop)
		}
	}
	if report, err := Run(t.Context(), options); err != nil || report.Workloads != 2 {
		t.Fatalf("got %+v, %v", report, err)
	}
	options.Stop, d.after = nil, nil
	d.fingerprint["release"] = "2"
	var problem *EnvironmentError
	if _, err := Run(t.Context(), options); !errors.As(err, &problem) || problem.Differences[0].Key != "release" {
		t.Fatalf("another release: got %v", err)
	}
	options.OnChange = RemeasureOnChange
	if report, err := Run(t.Context(), options); err != nil || report.Workloads != 4 {
		t.Errorf("remeasured: got %+v, %v", report, err)
	}
}

// Records that a clock cannot have made are no measurement.
func TestStepsRefused(t *testing.T) {
	good := StepRecord{Requests: []perfio.Request{{NewTokens: 1, KVHistory: 5}}, HostMarksUS: HostMarks{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, DeviceMarksUS: []float64{1, 2, 3, 4}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*StepRecord){
		"requests":        func(s *StepRecord) { s.Requests = nil },
		"new tokens":      func(s *StepRecord) { s.Requests[0].NewTokens = 0 },
		"history":         func(s *StepRecord) { s.Requests[0].KVHistory = -1 },
		"admitted":        func(s *StepRecord) { s.Admitted = 2 },
		"graph":           func(s *StepRecord) { s.Graph = "SOME" },
		"no marks":        func(s *StepRecord) { s.HostMarksUS = HostMarks{} },
		"no schedule":     func(s *StepRecord) { s.HostMarksUS[MarkSchedule] = math.NaN() },
		"a clock back":    func(s *StepRecord) { s.HostMarksUS[MarkForward] = 2 },
		"device readings": func(s *StepRecord) { s.DeviceMarksUS = []float64{1, 2, 3} },
		"device back":     func(s *StepRecord) { s.DeviceMarksUS[3] = 2 },
		"infinite":        func(s *StepRecord) { s.HostMarksUS[MarkReturned] = math.Inf(1) },
	} {
		bad := good
		bad.Requests, bad.DeviceMarksUS = slices.Clone(good.Requests), slices.Clone(good.DeviceMarksUS)
		change(&bad)
		if bad.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
