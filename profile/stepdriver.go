package profile

import (
	"context"
	"errors"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// StepSource is what a Driver also is if whole steps can come of it.
type StepSource interface {
	// StepModes lists the modes (perfio.StepModes) that are worth measuring, in
	// the order to measure them; none where the driver has no steps.
	StepModes(ctx context.Context) ([]string, error)
}

// StepDriver is a Driver whose engine can serve requests. Its methods are called
// from the goroutine that calls the Driver's.
type StepDriver interface {
	StepSource
	// BootServing starts the engine as a server has it, in place of the one that
	// runs, if any. An error that wraps ErrOutOfMemory says that the model does not
	// fit at this depth.
	BootServing(ctx context.Context, spec ServingSpec) (*ServingEngine, error)
	// Serve has the engine serve the workload, recording each step. progress,
	// which may be nil, is told now and then how many requests are done. After an
	// error the engine is gone.
	Serve(ctx context.Context, w Workload, progress func(served int)) (*Served, error)
}

// StepReplayer is a Driver that has the rows of step.csv already.
type StepReplayer interface {
	StepSource
	// ReplaySteps gives a mode's rows by depth; none where it has no such mode.
	ReplaySteps(mode string) ([]ReplayedSteps, error)
}

// ReplayedSteps are the rows of one mode and depth, and what meta.yaml is to say
// of them.
type ReplayedSteps struct {
	Facts *StepFacts
	Rows  []perfio.StepRow
}

// ErrOutOfMemory is wrapped by what says that a model does not fit.
var ErrOutOfMemory = errors.New("out of memory")

// ServingSpec is a serving engine to boot: the fields of EngineSpec but for
// Architecture, TP and Blocks, with MaxNumBatchedTokens as it stands.
type ServingSpec struct {
	EngineSpec
	Layers int    // depth; 0: the model's own
	Mode   string // one of perfio.StepModes
}

// Eager says whether the mode launches kernels one by one.
func (s *ServingSpec) Eager() bool {
	return s.Mode == perfio.ModeEagerSync || s.Mode == perfio.ModeEagerAsync
}

// Async says whether the mode schedules a step while another is on the device.
func (s *ServingSpec) Async() bool {
	return s.Mode == perfio.ModeGraphAsync || s.Mode == perfio.ModeEagerAsync
}

// ServingEngine is what BootServing found.
type ServingEngine struct {
	Engine
	Layers          int
	AsyncScheduling bool   // as the engine has it
	CaptureSizes    []int  // batch sizes of the engine's graphs; none: no graphs
	GraphMode       string // the engine's name for how it uses them
	CPU             string // the host's processor, "" where it is not known
	BootSeconds     float64
}

// Check says where the engine is not what the mode means.
func (e *ServingEngine) Check(spec *ServingSpec) error {
	switch {
	case e.AsyncScheduling != spec.Async():
		return errors.New("the engine did not take the mode's async_scheduling")
	case !spec.Eager() && len(e.CaptureSizes) == 0:
		return errors.New("the engine has no graphs")
	case e.Layers < 1:
		return errors.New("the engine does not say its depth")
	}
	return nil
}

// Workload is a list of requests to serve.
type Workload struct {
	Name     string            `json:"name"`
	Requests []WorkloadRequest `json:"requests"`
	// Steps, where it is above 0, ends the workload after that many steps; what is
	// unfinished then is given up.
	Steps int   `json:"steps,omitempty"`
	Seed  int64 `json:"seed,omitempty"`
}

// WorkloadRequest is one request. It arrives at a time of the workload's clock
// or, where AtStep is given (in all requests or in none), when that many steps
// have been scheduled, or before if nothing else is left to do.
type WorkloadRequest struct {
	PromptTokens int     `json:"prompt_tokens"`
	OutputTokens int     `json:"output_tokens"`
	ArrivalUS    float64 `json:"arrival_us,omitempty"`
	AtStep       *int    `json:"at_step,omitempty"`
}

// Served is what came of a workload.
type Served struct {
	Requests []ServedRequest // those that were added, in any order
	Steps    []StepRecord    // in the order in which they were scheduled
}

// ServedRequest is one request's times on the clock of the steps' host marks.
type ServedRequest struct {
	Number       int // in the workload
	ArrivalUS    float64
	AddedUS      float64 // when the engine was given it
	FirstTokenUS float64 // when its first token reached the caller; NaN: it did not
	DoneUS       float64 // when its last one did; NaN: it was given up
	OutputTokens int     // that came
}

// StepModesOf are the step modes of a driver; none where it has no steps.
func StepModesOf(ctx context.Context, d Driver) ([]string, error) {
	source, ok := d.(StepSource)
	if !ok {
		return nil, nil
	}
	return source.StepModes(ctx)
}

// isMode says whether text names a mode.
func isMode(text string) bool { return slices.Contains(perfio.StepModes(), text) }
