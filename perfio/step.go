package perfio

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
)

// Modes that whole steps are measured in: how the engine launches its kernels,
// and whether it schedules a step while the one before is on the device.
const (
	ModeGraphSync  = "graph_sync"
	ModeGraphAsync = "graph_async"
	ModeEagerSync  = "eager_sync"
	ModeEagerAsync = "eager_async"
)

// StepModes lists the modes in the order of step.csv. The result is the caller's.
func StepModes() []string {
	return []string{ModeGraphSync, ModeGraphAsync, ModeEagerSync, ModeEagerAsync}
}

// What the engine launched a step's forward pass as.
const (
	GraphFull      = "FULL"      // one graph for all of it
	GraphPiecewise = "PIECEWISE" // graphs for what lies between attention calls
	GraphNone      = "NONE"
)

// StepRow is one row of step.csv: a step of an engine that serves requests, or
// the medians of Steps steps that follow one another and differ only in that
// every decode's history grows by one. Times are microseconds; NaN is a time that
// was not measured (an empty field). The parts from ScheduleUS to BetweenUS
// follow one another and make up StepUS.
type StepRow struct {
	Mode         string // one of StepModes
	Layers       int    // depth of the model that was booted
	Graph        string // GraphFull, GraphPiecewise, GraphNone, or "" where the engine does not say
	PaddedTokens int    // tokens that the forward pass ran with, padding included
	NDecode      int
	KVDecodeMean float64 // of the decodes' histories, in the middle step
	KVDecodeMax  int
	KVDecodeMin  int
	NPrefill     int // requests with more than one new token, or no history
	PrefillChunk int // sum of their new tokens
	KVPrefill    int // sum of their histories
	Admitted     int // requests that are in their first step
	Finished     int // requests that the step before was the last one of
	Steps        int // measured steps behind the row, at least 1

	ScheduleUS float64 // the scheduler's call
	DispatchUS float64 // from its return to the call that executes the step
	PrepareUS  float64 // to the forward's call: inputs, metadata
	LaunchUS   float64 // the forward's call
	AfterUS    float64 // to execute's return
	SampleUS   float64 // to the sampler's return; without async scheduling it waits for the device here
	WaitUS     float64 // to the next call of the scheduler's update, which with async scheduling is that of the step before
	UpdateUS   float64 // that call
	ReturnUS   float64 // from its return to that of the engine's step
	// BetweenUS is from the last return of the engine's step (from the sampler's,
	// where none returned) to the next step's scheduler call.
	BetweenUS float64
	StepUS    float64 // from the scheduler's call to that of the next step

	DeviceWaitUS    float64 // on the device's clock: from execute's call to the forward's beginning
	DeviceForwardUS float64 // to the forward's end
	DeviceAfterUS   float64 // to the end of sampling
	DeviceStepUS    float64 // from the end of the step before to the end of this one
	Spread          float64 // of StepUS among the row's steps: (max - min)/median, 0 for one step
}

// TimesUS are the row's times in the order of their columns, NaN where not measured.
func (r *StepRow) TimesUS() [15]*float64 {
	return [...]*float64{
		&r.ScheduleUS, &r.DispatchUS, &r.PrepareUS, &r.LaunchUS, &r.AfterUS, &r.SampleUS, &r.WaitUS, &r.UpdateUS, &r.ReturnUS,
		&r.BetweenUS, &r.StepUS, &r.DeviceWaitUS, &r.DeviceForwardUS, &r.DeviceAfterUS, &r.DeviceStepUS,
	}
}

// Times are the row's times in microseconds, NaN where not measured, by the names
// of their columns and in that order.
func (r *StepRow) Times() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		for i, us := range r.TimesUS() {
			if !yield(stepSchema.Columns[stepFirstTime+i].Name, *us) {
				return
			}
		}
	}
}

// SortSteps puts rows into the order of step.csv: by mode, else as they are.
func SortSteps(rows []StepRow) {
	order := StepModes()
	slices.SortStableFunc(rows, func(a, b StepRow) int {
		return slices.Index(order, a.Mode) - slices.Index(order, b.Mode)
	})
}

func stepTime(name, doc string) Column {
	return Column{Name: name, Type: Number, Unit: "us", Max: MaxTimeUS, Empty: true, Format: OneDecimal, Doc: doc}
}

func stepCount(name, unit, doc string) Column {
	return Column{Name: name, Type: Integer, Unit: unit, Max: MaxKey, Doc: doc}
}

// contradiction is a column that cannot be beside the others: what was found and
// what was expected, "" where all is well.
func (r *StepRow) contradiction() (column int, found, expected string) {
	const kvMean, prefillChunk, admitted = 5, 9, 11
	number := func(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }
	switch {
	case r.KVDecodeMean < float64(r.KVDecodeMin) || r.KVDecodeMean > float64(r.KVDecodeMax):
		return kvMean, number(r.KVDecodeMean), fmt.Sprintf("a mean from %d to %d", r.KVDecodeMin, r.KVDecodeMax)
	case r.NDecode == 0 && r.KVDecodeMax > 0:
		return kvMean, number(r.KVDecodeMean), "0 without decodes"
	case r.PrefillChunk < r.NPrefill || r.NPrefill == 0 && r.PrefillChunk > 0:
		return prefillChunk, strconv.Itoa(r.PrefillChunk), fmt.Sprintf("the new tokens of %d prefills", r.NPrefill)
	case r.Admitted > r.NDecode+r.NPrefill:
		return admitted, strconv.Itoa(r.Admitted), fmt.Sprintf("at most the step's %d requests", r.NDecode+r.NPrefill)
	}
	return 0, "", ""
}

// The columns from stepFirstTime on are TimesUS, then the spread.
const (
	stepFirstTime = 14
	stepSpread    = stepFirstTime + 15
)

var stepSchema = &Table{
	File: StepFile, Order: "mode, then as measured",
	Doc: "whole steps of the engine serving requests: the host's parts and the device's",
	Columns: []Column{
		{Name: "mode", Type: Text, Values: StepModes(), Doc: "graphs or eager launches, scheduling synchronous or behind the device"},
		stepCount("layers", "layers", "depth of the model that was booted"),
		{Name: "graph", Type: Text, Empty: true, Values: []string{GraphFull, GraphPiecewise, GraphNone}, Doc: "what the forward pass was launched as"},
		stepCount("padded_tokens", "tokens", "tokens of the forward pass, padding included"),
		stepCount("n_decode", "requests", "requests with one new token and a history"),
		{Name: "kv_decode_mean", Type: Number, Unit: "tokens", Max: MaxKey, Format: OneDecimal, Doc: "mean of their histories, in the middle step"},
		stepCount("kv_decode_max", "tokens", "the longest"),
		stepCount("kv_decode_min", "tokens", "the shortest"),
		stepCount("n_prefill", "requests", "the other requests"),
		stepCount("prefill_chunk", "tokens", "sum of the new tokens of prefills"),
		stepCount("kv_prefill", "tokens", "sum of their histories"),
		stepCount("admitted", "requests", "requests that are in their first step"),
		stepCount("finished", "requests", "requests that ended with the step before"),
		{Name: "steps", Type: Integer, Unit: "steps", Min: 1, Max: MaxKey, Doc: "measured steps behind the row, which holds their medians"},
		stepTime("schedule_us", "the scheduler's call"),
		stepTime("dispatch_us", "to the call that executes the step"),
		stepTime("prepare_us", "to the forward's call"),
		stepTime("launch_us", "the forward's call"),
		stepTime("after_us", "to execute's return"),
		stepTime("sample_us", "to the sampler's return; without async scheduling it waits for the device"),
		stepTime("wait_us", "to the next call of the scheduler's update; with async scheduling that of the step before"),
		stepTime("update_us", "that call"),
		stepTime("return_us", "to the return of the engine's step"),
		stepTime("between_us", "to the next step's scheduler call"),
		stepTime("step_us", "from the scheduler's call to that of the next step: the sum of the above"),
		stepTime("device_wait_us", "on the device, from execute's call to the forward's beginning"),
		stepTime("device_forward_us", "to the forward's end"),
		stepTime("device_after_us", "to the end of sampling"),
		stepTime("device_step_us", "from the end of the step before to the end of this one"),
		{Name: "spread", Type: Number, Unit: "1", Max: math.MaxFloat64, Format: FourDecimals, Doc: "(max - min)/median of step_us among the row's steps"},
	},
}

var stepCodec = &codec[StepRow]{
	schema: stepSchema,
	decode: func(s *rowScanner, r *StepRow) {
		r.Mode, r.Layers, r.Graph = s.text(0), s.integer(1), s.text(2)
		r.PaddedTokens, r.NDecode, r.KVDecodeMean = s.integer(3), s.integer(4), s.number(5)
		r.KVDecodeMax, r.KVDecodeMin = s.integer(6), s.integer(7)
		r.NPrefill, r.PrefillChunk, r.KVPrefill = s.integer(8), s.integer(9), s.integer(10)
		r.Admitted, r.Finished, r.Steps = s.integer(11), s.integer(12), s.integer(13)
		for i, us := range r.TimesUS() {
			*us = s.number(stepFirstTime + i)
			if !s.has(stepFirstTime + i) {
				*us = math.NaN()
			}
		}
		r.Spread = s.number(stepSpread)
		if len(s.problems) == 0 {
			if i, found, expected := r.contradiction(); expected != "" {
				s.problem(s.fields[i].at, stepSchema.Columns[i].Name, &MismatchError{found, expected})
			}
		}
	},
	values: func(r *StepRow, w *rowWriter) {
		if i, found, expected := r.contradiction(); expected != "" {
			w.err = fmt.Errorf("%s: %w", stepSchema.Columns[i].Name, &MismatchError{found, expected})
		}
		w.text(r.Mode)
		w.integer(r.Layers)
		w.text(r.Graph)
		w.integer(r.PaddedTokens)
		w.integer(r.NDecode)
		w.number(r.KVDecodeMean)
		for _, n := range []int{r.KVDecodeMax, r.KVDecodeMin, r.NPrefill, r.PrefillChunk, r.KVPrefill, r.Admitted, r.Finished, r.Steps} {
			w.integer(n)
		}
		for _, us := range r.TimesUS() {
			if math.IsNaN(*us) {
				w.nothing()
			} else {
				w.number(*us)
			}
		}
		w.number(r.Spread)
	},
}
