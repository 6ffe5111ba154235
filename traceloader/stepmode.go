package traceloader

import (
	"fmt"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/perfio"
)

// StepMode says how the engine runs its steps, by the names of step.csv.
type StepMode string

// The modes. Graphs: the model is compiled and launched as CUDA graphs, as far
// as they were captured; eager: kernel by kernel. Async: the next step is
// scheduled while the device is at this one.
const (
	// KernelsOnly is no engine's mode: a step is the sum of its layers.
	KernelsOnly StepMode = ""
	GraphSync   StepMode = perfio.ModeGraphSync
	GraphAsync  StepMode = perfio.ModeGraphAsync
	EagerSync   StepMode = perfio.ModeEagerSync
	EagerAsync  StepMode = perfio.ModeEagerAsync
)

// Async tells whether the host schedules ahead of the device.
func (m StepMode) Async() bool { return strings.HasSuffix(string(m), "_async") }

// sync is the mode without scheduling ahead.
func (m StepMode) sync() StepMode { return StepMode(strings.Replace(string(m), "_async", "_sync", 1)) }

// graphs tells whether the mode launches graphs.
func (m StepMode) graphs() bool { return strings.HasPrefix(string(m), "graph_") }

// ParseStepMode reads a mode's name; "kernels" and "" are KernelsOnly.
func ParseStepMode(name string) (StepMode, error) {
	if name == "" || name == "kernels" {
		return KernelsOnly, nil
	}
	if !slices.Contains(perfio.StepModes(), name) {
		return KernelsOnly, fmt.Errorf("step mode: found %q, expected kernels or one of %s", name, strings.Join(perfio.StepModes(), ", "))
	}
	return StepMode(name), nil
}

// StepModes returns the modes whose steps were measured at a tp, in the order of
// step.csv; none without one.
func (t *Table) StepModes(tp int) []StepMode {
	f := t.tp(tp)
	if f == nil {
		return nil
	}
	var modes []StepMode
	for _, name := range perfio.StepModes() {
		if slices.ContainsFunc(f.steps, func(r perfio.StepRow) bool { return r.Mode == name }) {
			modes = append(modes, StepMode(name))
		}
	}
	return modes
}
