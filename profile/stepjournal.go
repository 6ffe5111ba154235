package profile

import "slices"

const (
	recordServing recordKind = "serving" // a serving engine was booted, or could not be
	recordSteps   recordKind = "steps"   // what came of one workload
)

// stepsRecord is the part of a record that is about whole steps.
type stepsRecord struct {
	Mode     string       `json:"mode"`
	Layers   int          `json:"layers,omitempty"`
	Workload string       `json:"workload,omitempty"`
	Steps    CompactSteps `json:"steps,omitempty"`
	// Table, in place of Steps, is a step.csv that a driver had already.
	Table string     `json:"table,omitempty"`
	Facts *StepFacts `json:"facts,omitempty"` // of a boot
}

// StepFacts are what is recorded of a serving engine.
type StepFacts struct {
	Layers          int     `json:"layers"`
	CaptureSizes    []int   `json:"capture_sizes,omitempty"`
	GraphMode       string  `json:"graph_mode,omitempty"`
	ModelRunner     string  `json:"model_runner,omitempty"`
	AsyncScheduling bool    `json:"async_scheduling"`
	CPU             string  `json:"cpu,omitempty"`
	VLLMVersion     string  `json:"vllm_version,omitempty"`
	BootSeconds     float64 `json:"boot_seconds,omitempty"`
	Limits          Limits  `json:"limits"`
	// These are for a bundle that has no more than steps.
	GPU              string `json:"gpu,omitempty"`
	SMCount          int    `json:"sm_count,omitempty"`
	CUDAVersion      string `json:"cuda_version,omitempty"`
	AttentionBackend string `json:"attention_backend,omitempty"`
	Origin           Origin `json:"origin,omitempty"`
}

func factsOf(e *ServingEngine) *StepFacts {
	return &StepFacts{
		Layers: e.Layers, CaptureSizes: e.CaptureSizes, GraphMode: e.GraphMode, ModelRunner: e.ModelRunner,
		AsyncScheduling: e.AsyncScheduling, CPU: e.CPU, VLLMVersion: e.VLLMVersion, BootSeconds: e.BootSeconds, Limits: e.Limits,
		GPU: e.GPU, SMCount: e.SMCount, CUDAVersion: e.CUDAVersion, AttentionBackend: e.AttentionBackend, Origin: e.Origin,
	}
}

// servingKey identifies what is booted for steps.
type servingKey struct {
	tp     int
	mode   string
	layers int
}

// stepsKey identifies one workload's steps.
type stepsKey struct {
	tp       int
	mode     string
	layers   int
	workload string
}

// addSteps takes a record about whole steps into the index: the last one counts.
func (x *journalIndex) addSteps(r *record) {
	s := r.Steps
	if s == nil {
		return
	}
	if x.steps == nil {
		x.steps, x.serving = make(map[stepsKey]*record), make(map[servingKey]*record)
	}
	switch r.Kind {
	case recordServing:
		if s.Facts == nil && r.Status == OK {
			return
		}
		x.serving[servingKey{r.TP, s.Mode, s.Layers}] = r
	case recordSteps:
		k := stepsKey{r.TP, s.Mode, s.Layers, s.Workload}
		if x.steps[k] == nil {
			x.stepsOrder = append(x.stepsOrder, k)
		}
		x.steps[k] = r
	}
}

// stepsUnder is a workload's record if it was measured in the environment or in
// one that counts for it.
func (x *journalIndex) stepsUnder(env string, k stepsKey) *record {
	if r := x.steps[k]; r != nil && slices.Contains(x.environmentsFor(env), r.Env) {
		return r
	}
	return nil
}

// hasSteps reports whether any workload was measured in a boot's environment.
func (x *journalIndex) hasSteps(serving *record) bool {
	for k, r := range x.steps {
		if k.tp == serving.TP && k.mode == serving.Steps.Mode && k.layers == serving.Steps.Layers && r.Env == serving.Env {
			return true
		}
	}
	return false
}
