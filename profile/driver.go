package profile

import (
	"context"
	"time"

	"github.com/layerprof/layerprof/perfio"
)

// Origin says what stands behind a driver's numbers.
type Origin string

// A number was measured on a device, replayed from a measured bundle, or
// computed from a model of the hardware.
const (
	Measured  Origin = "measured"
	Replayed  Origin = "replayed"
	Synthetic Origin = "synthetic"
)

// Driver measures shots on one engine at a time. Its methods are called from
// one goroutine, but for Close, which may come at any moment and from anywhere.
type Driver interface {
	// Describe says what the driver is, without booting an engine.
	Describe(ctx context.Context) (Description, error)
	// Boot starts the engine for one model, data type and tensor-parallel
	// degree, in place of the one that runs, if any.
	Boot(ctx context.Context, spec EngineSpec) (*Engine, error)
	// Measure runs the shots and hands each result to yield as it finishes, in
	// any order, each index once. A shot that fails is a Result with a status
	// other than OK. An error means that the engine is lost or that yield
	// returned one: shots without a result are unmeasured, and Boot comes next.
	// An error of type *EngineLostError names the shot that was in flight.
	Measure(ctx context.Context, shots []Shot, options MeasureOptions, yield func(Result) error) error
	// Close ends the engine and frees what the driver holds. It is safe to
	// call more than once.
	Close() error
}

// Description is what a driver knows of itself before it boots.
type Description struct {
	Name    string // "roofline", "replay", "vllm", "exec"
	Version string
	Origin  Origin
	// ShareRepeats is the plan's default: whether shots of equal shape in
	// different categories may share one measurement.
	ShareRepeats bool
	// BatchShots is how many shots Measure is best given at once; at least 1.
	BatchShots int
	// PaceShotsPerSecond is the driver's usual pace, 0 where it is not known.
	PaceShotsPerSecond float64
}

// TPMode says how a tensor-parallel degree is had.
type TPMode string

const (
	// EmulatedTP boots one rank, of a model whose sizes are divided by the degree.
	EmulatedTP TPMode = perfio.TPModeEmulated
	// RealTP boots the undivided model on as many devices as the degree says,
	// through the engine's own executor. Its ranks' collectives are measured as
	// layers of their own, and the slowest rank counts.
	RealTP TPMode = perfio.TPModeReal
)

// EngineSpec is what to boot.
type EngineSpec struct {
	Model        *perfio.ModelConfig // as the model's config.json has it, undivided
	Architecture *perfio.Architecture
	TP           int    // tensor-parallel degree, at least 1
	TPMode       TPMode // "": emulated
	DType        string // vLLM's name: "bfloat16", ...
	KVCacheDType string // "auto", "fp8", ...
	// MaxNumBatchedTokens and MaxNumSeqs are the logical limits. An engine is
	// booted with their sum as its max_num_batched_tokens, so that shots may
	// exceed the first.
	MaxNumBatchedTokens int
	MaxNumSeqs          int
	MaxModelLen         int // 0: the longest that the plan or the model needs
	// KVBlocks bounds the KV cache of drivers that have none of their own; 0:
	// unbounded there, the engine's own on an engine.
	KVBlocks int
	// Blocks is the number of decoder blocks to boot, 1 or 2; the layers of the
	// last one are what counts.
	Blocks     int
	Seed       int64
	EngineArgs map[string]string // passed to the engine as they are
}

// Limits bound the plan; they come from the engine. Zero means no limit, but
// for BlockSize, which is at least 1.
type Limits struct {
	MaxNumBatchedTokens int // logical
	MaxNumSeqs          int
	MaxModelLen         int
	CacheTokens         int // KV blocks x block size
	BlockSize           int
	NumExperts          int
	TopK                int
}

// Engine is what Boot found.
type Engine struct {
	Limits Limits
	// Fingerprint identifies what is measured: driver, engine version, GPU,
	// data types, config hash, order, blocks. Measurements are only reused
	// under an equal fingerprint. Keys are stable names.
	Fingerprint map[string]string
	// Provenance goes into meta.yaml as it is; values are scalars, lists and
	// maps that YAML can hold.
	Provenance map[string]any
	Origin     Origin
	GPU        string // the device's name, as the driver reports it
	SMCount    int    // 0: not known
	// AttentionBackend and the versions are empty where they do not apply.
	AttentionBackend string
	ModelRunner      string
	VLLMVersion      string
	CUDAVersion      string
	// Catalog is how each catalog entry was matched; empty for drivers that
	// know no modules.
	Catalog []CatalogMatch
	// UnmatchedModules are modules that take time and belong to no entry.
	UnmatchedModules []string
}

// CatalogMatch says which of the engine's modules belong to a catalog entry.
type CatalogMatch struct {
	Layer   string
	Modules []string // qualified names; empty: the entry matched nothing
}

// MeasureOptions are common to the shots of one Measure call.
type MeasureOptions struct {
	Warmup     int
	Iterations int // timed samples, at least 1
	// Layers restricts what is returned; nil: every layer of the catalog.
	Layers []string
	// FlushL2 clears the device's cache before each sample.
	FlushL2 bool
	// Deadline is the longest that one shot may take; 0: the driver's own.
	Deadline time.Duration
}

// Status is how a shot or a layer of it ended.
type Status string

// A result is only ever used where its status is OK.
const (
	OK          Status = "ok"
	Infeasible  Status = "infeasible"    // beyond the engine's limits; never fired
	Failed      Status = "failed"        // the engine refused or broke; it goes on
	OutOfMemory Status = "out_of_memory" // likewise
	TimedOut    Status = "timed_out"
)

// Result is what came of one shot.
type Result struct {
	Index   int // into the shots that Measure was given
	Status  Status
	Message string // why, where Status is not OK
	Layers  []LayerResult
	// Collectives are what the ranks of an engine told each other in the step;
	// none where it has one rank. No layer's time has any of it.
	Collectives []CollectiveResult
	// StepUS is the wall time of the whole step, a value a sample.
	StepUS []float64
	// Unaccounted is the share of the step's device time that belongs to no
	// layer's own range, 0 to 1.
	Unaccounted float64
	// Executed is the order in which the engine ran the requests, where it is
	// not the one that the shot listed.
	Executed  []Group
	Telemetry *Telemetry
}

// LayerResult is one layer's samples in one shot.
type LayerResult struct {
	Layer string
	// SamplesUS is the time per call, a value a sample: the mean over the
	// layer's calls in the step.
	SamplesUS []float64
	Calls     int // calls of the layer in one step
	Launches  int // kernels, or timed calls, behind one step
	// KernelsUS splits the time by kernel class (attention: flash, combine,
	// cache_write), a value a sample; nil where there is no such split.
	KernelsUS map[string][]float64
	// RanksUS is the median of each rank of an engine of several, of which
	// SamplesUS has the slowest; nil where there is one.
	RanksUS []float64
}

// CollectiveResult is one kind of collective that a layer ends with.
type CollectiveResult struct {
	Layer string // of the catalog; "" outside all of them
	Kind  string // all_reduce, all_gather, ...
	Rows  int    // of the tensor that a rank gives: tokens, or sequences
	Bytes int    // of that tensor
	Ranks int
	Calls int // in one call of the layer
	// SamplesUS is the mean over the step's collectives of the transfer: how long the rank that came last, and waited
	// for nobody, was in it. A value a sample.
	SamplesUS []float64
	// WaitUS is how much longer the rank that came first was in it.
	WaitUS []float64
	By     string // the kernel that took most of it; "" where none is known
}

// Telemetry is the device's state around a shot or a block of shots. A zero is
// a value that was not read.
type Telemetry struct {
	SMClockMHz       int      `json:"sm_clock_mhz,omitempty"`
	MemoryClockMHz   int      `json:"memory_clock_mhz,omitempty"`
	TemperatureC     int      `json:"temperature_c,omitempty"`
	PowerMW          int      `json:"power_mw,omitempty"`
	ThrottleReasons  []string `json:"throttle_reasons,omitempty"`
	MemoryUsedMiB    int      `json:"memory_used_mib,omitempty"`
	UtilizationShare float64  `json:"utilization_share,omitempty"`
}

// EngineLostError is returned by Measure when the engine died, hung or was
// killed; the run boots a fresh one.
type EngineLostError struct {
	// Index is the shot that was in flight, -1 where that is not known.
	Index int
	// LastWords is the tail of what the engine printed.
	LastWords string
	Err       error
}

func (e *EngineLostError) Error() string { return "engine lost: " + e.Err.Error() }

// Unwrap gives the cause.
func (e *EngineLostError) Unwrap() error { return e.Err }
