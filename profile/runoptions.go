package profile

import (
	"errors"
	"fmt"
	"time"
)

// EnvironmentPolicy says what a run does when the environment is not the one
// that earlier measurements of the bundle were made in.
type EnvironmentPolicy string

const (
	// StopOnChange ends the run with an *EnvironmentError.
	StopOnChange EnvironmentPolicy = "stop"
	// KeepOnChange goes on and lets earlier measurements count.
	KeepOnChange EnvironmentPolicy = "keep"
	// RemeasureOnChange goes on and measures everything again.
	RemeasureOnChange EnvironmentPolicy = "remeasure"
)

// RunOptions say what to measure, with what, and how carefully. Dir, Hardware,
// Open, Spec.Model, Spec.Architecture and Plan are required.
type RunOptions struct {
	Dir      string // the bundle's folder, <root>/<hardware>/<model>/<variant>
	Hardware string // its name for the hardware
	Variant  string
	// Open makes a driver. It is called again whenever a fresh one is wanted.
	Open func() (Driver, error)
	// Spec is what to boot; TP is filled in from TPs.
	Spec EngineSpec
	TPs  []int // nil: 1
	// Plan plans one degree for the engine that was booted for it.
	Plan func(tp int, engine *Engine) (TPPlan, error)
	// PlanOptions are those that Plan works by: meta.yaml records them, and
	// ShareRepeats and Order are followed.
	PlanOptions PlanOptions

	// Shard, if it is not zero, is the part of the plan that this run measures,
	// into its own file of the bundle's journal; several may run at a time, on
	// any machines that share the folder. No table is written: see MergeShards.
	Shard Shard
	// redivide: the bundle may have shards of other numbers.
	redivide bool
	// Costs balance the shards; zero: by the driver's pace.
	Costs Costs
	// Place says to people where a shard runs, the host and the device.
	Place string
	// Steps, where it is not nil, has whole steps measured after the shots.
	Steps *StepOptions

	Warmup     int
	Iterations int // samples of a shot; 0: 3
	// MaxIterations bounds the samples of a shot whose median is not yet known
	// to TargetError, a share of it, nor to 0.1 us; 0: 3 * Iterations, and 0.02.
	// A negative TargetError: as many samples as Iterations says, always.
	MaxIterations int
	TargetError   float64
	FlushL2       bool
	Deadline      time.Duration // for one shot; 0: 2 minutes
	Retries       int           // of a failing shot, each on a fresh driver; 0: 1; negative: none
	Seed          int64         // of the order

	// AnchorEvery is how many shots pass between two measurements of the
	// anchor; 0: 50, none where the driver's numbers are synthetic; negative: none.
	AnchorEvery int
	// DriftThreshold is the share by which two anchors may differ before the
	// shots between them are measured again; 0: 0.01.
	DriftThreshold float64
	// MaxRedo bounds how often a shot is measured again for that; 0: 2;
	// negative: never.
	MaxRedo int

	// SkipFit leaves skew cases unfitted, as a bundle whose own are not fitted
	// is replayed.
	SkipFit bool

	OnChange EnvironmentPolicy // "": stop

	// Begin, if set, is called once, when the bundle is locked and the first
	// engine found to be one whose measurements may stand in it.
	Begin func() error
	// Stop, once closed, has the shot in flight finished and the run end with
	// what it has.
	Stop <-chan struct{}
	// Observe is told what happens, from the goroutine that called Run.
	Observe func(Event)
	// ReadTelemetry reads the device's state once a block; nil: drivers alone
	// tell of it.
	ReadTelemetry func() (*Telemetry, error)
	// Now is the wall clock, for meta.yaml and the journal's records; nil: time.Now.
	Now func() time.Time
	// These go into meta.yaml.
	ProfilerVersion string
	PlanName        string // full, lean, or what the plan was taken from
}

func (o RunOptions) filled() (RunOptions, error) {
	if o.Dir == "" || o.Hardware == "" || o.Open == nil || o.Spec.Model == nil || o.Spec.Architecture == nil || o.Plan == nil {
		return o, errors.New("run: Dir, Hardware, Open, Spec.Model, Spec.Architecture and Plan are required")
	}
	if len(o.TPs) == 0 {
		o.TPs = []int{1}
	}
	setDefault(&o.Iterations, 3)
	setDefault(&o.MaxIterations, 3*o.Iterations)
	setDefault(&o.TargetError, 0.02)
	setDefault(&o.Deadline, 2*time.Minute)
	setDefault(&o.Retries, 1)
	setDefault(&o.DriftThreshold, 0.01)
	setDefault(&o.MaxRedo, 2)
	setDefault(&o.OnChange, StopOnChange)
	setDefault(&o.Spec.Blocks, 2)
	errs := []error{o.Shard.check()}
	if o.Iterations < 1 {
		errs = append(errs, fmt.Errorf("iterations: found %d, expected at least 1", o.Iterations))
	}
	if o.Warmup < 0 {
		errs = append(errs, fmt.Errorf("warmup: found %d, expected at least 0", o.Warmup))
	}
	if o.MaxIterations < o.Iterations {
		errs = append(errs, fmt.Errorf("max-iterations: found %d, expected at least iterations, %d", o.MaxIterations, o.Iterations))
	}
	if o.Steps != nil {
		errs = append(errs, o.Steps.check())
	}
	switch o.OnChange {
	case StopOnChange, KeepOnChange, RemeasureOnChange:
	default:
		errs = append(errs, fmt.Errorf("on-environment-change: found %q, expected stop, keep or remeasure", o.OnChange))
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, errors.Join(errs...)
}
