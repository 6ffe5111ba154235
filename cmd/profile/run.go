package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/profile"
)

// runFlags say how carefully, how long and how loudly to measure.
type runFlags struct {
	*sweepFlags
	MaxIterations  int
	TargetError    float64
	FlushL2        bool
	Deadline       time.Duration
	Retries        int
	AnchorEvery    int
	DriftThreshold float64
	Budget         time.Duration
	Shard          string
	GPUs           string
	DeviceEnv      string
	DeviceLimit    float64
	OnChange       string
	LogFormat      string
	Telemetry      bool
}

func addRunFlags(cmd *cobra.Command) *runFlags {
	f := &runFlags{sweepFlags: addSweepFlags(cmd)}
	flags := cmd.Flags()
	flags.IntVar(&f.MaxIterations, "max-iterations", 0, "most timed runs of a shot whose median is not known to --target-error (0: 3 times --iterations)")
	flags.Float64Var(&f.TargetError, "target-error", 0.02, "standard error of a median, as a share of it, at which sampling ends (negative: always --iterations runs)")
	flags.BoolVar(&f.FlushL2, "flush-l2", false, "clear the device's cache before each timed run")
	flags.DurationVar(&f.Deadline, "deadline", 2*time.Minute, "longest that one shot may take")
	flags.IntVar(&f.Retries, "retries", 1, "times that a failing shot is tried again, each on a fresh driver")
	flags.IntVar(&f.AnchorEvery, "anchor-every", 0, "shots between two measurements of the anchor (0: 50, none for synthetic numbers; negative: none)")
	flags.Float64Var(&f.DriftThreshold, "drift-threshold", 0.01, "share by which the anchor may move before the shots between are measured again")
	flags.DurationVar(&f.Budget, "budget", 0, "`time` after which the run ends, resumable, as in 30m (0: no limit)")
	flags.StringVar(&f.Shard, "shard", "", "`i/n`: measure only part i of n, i from 0, into its own file of the journal; perfcheck merge puts the parts together")
	flags.StringVar(&f.GPUs, "gpus", "", "measure on several `devices` of this host at a time, a worker each: all, 0,2,5, or cpu:0,cpu:1 for lists of cores")
	flags.StringVar(&f.DeviceEnv, "device-env", "CUDA_VISIBLE_DEVICES", "`variable` that tells a worker which of --gpus is its own")
	flags.Float64Var(&f.DeviceLimit, "max-gpu-ratio", profile.DefaultShardLimit, "share by which a device's anchors may differ from the others' before its rows are kept apart")
	flags.StringVar(&f.OnChange, "on-environment-change", "stop", "where earlier measurements were made in another environment: stop, keep or remeasure")
	flags.StringVar(&f.LogFormat, "log-format", "text", "text (bars on a terminal, else lines) or json (one object a line)")
	flags.BoolVar(&f.Telemetry, "telemetry", true, "read the device's clocks, temperature and power through NVML where there is one")
	return f
}

func newRunCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Measure, and write a bundle",
		Long: `Measure what the plan wants, and write the bundle OUT/HARDWARE/MODEL/VARIANT.
Every measured shot is in the bundle's journal before it is reported as done: a
run that ends early, in whatever way, goes on where it was when it is started
again, or by "profile resume BUNDLE".

SIGINT, SIGTERM, SIGUSR1 and the end of --budget finish the shot in flight,
write the tables and end with status 3; a second signal leaves at once.

--shard i/n measures one of n parts, which many machines can do at a time where
they share OUT. A part that is complete ends with status 0 at once when it is
started again; "perfcheck merge BUNDLE" makes the tables of all.

--gpus does so on one host, and merges. A device that is lost leaves its part to
the others. The rows of one whose anchors differ from the others' are kept in a
folder of their own, and the others measure its part again.`,
		Args: cobra.NoArgs,
	}
	f := addRunFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.Model == "" || f.Hardware == "" || f.Driver == "" {
			return usageErrorf("model, hardware and driver: all three are required")
		}
		return a.measure(cmd, f, "")
	}
	return cmd
}

// measure runs the sweep that the flags describe into dir, "" being the folder
// that they name.
func (a *app) measure(cmd *cobra.Command, f *runFlags, dir string) (err error) {
	if f.LogFormat != "text" && f.LogFormat != "json" {
		return usageErrorf("log-format: found %q, expected text or json", f.LogFormat)
	}
	shard, err := f.shard()
	if err != nil {
		return err
	}
	var groups [][]string
	if f.GPUs != "" || cmd.Flags().Changed("gpus") {
		if shard.Count > 0 {
			return usageErrorf("gpus and shard: only one of the two divides a plan")
		}
		if groups, err = f.gpuGroups(cmd.Context()); err != nil {
			return err
		}
	}
	show, err := newProgress(a.stderr, f.LogFormat)
	if err != nil {
		return err
	}
	closeShow := sync.OnceFunc(show.close)
	defer closeShow()
	ended := watchSignals(cmd.Context(), f.Budget, show, "the run", "the shot in flight")
	defer ended.release()
	ctx := ended.atOnce
	opener := &driverOpener{flags: f.sweepFlags}
	defer func() { err = errors.Join(err, opener.close()) }()
	s, dir, err := a.loadRun(ended.soon, f, shard, opener, dir)
	if err != nil {
		return ended.before(err, "the first shot")
	}
	if s.lacksExperts() {
		show.note("the experts are measured at tp1, which this run leaves out: it writes no moe.csv")
	}
	options := f.runOptions(s, dir, s.variant())
	options.Shard, options.Place = shard, place()
	if shard.Count == 0 && groups == nil {
		if options.Steps, err = f.stepOptions(ended.soon, opener.first, s); err != nil {
			return ended.before(err, "the first shot")
		}
	} else if slices.Contains(f.Only, string(profile.Step)) {
		return usageErrorf("only: found step: whole steps are measured by a run without --shard and --gpus")
	}
	if groups != nil {
		if left, err := f.stepOptions(ended.soon, opener.first, s); err == nil && left != nil {
			show.note("whole steps are left out: profile run --only step, without --gpus, measures them")
		}
	}
	options.Open = opener.open
	options.Begin = func() error { return saveRunFlags(cmd, dir) }
	options.Observe = show.observe
	options.Stop = ended.soon.Done()
	if groups != nil {
		// The driver that was asked for its description is pinned to no device.
		if err := opener.close(); err != nil {
			return err
		}
		opener.first = nil
		return a.measureDevices(ctx, f, options, groups, show, closeShow)
	}
	if f.Telemetry {
		options.ReadTelemetry = readTelemetry(show)
	}
	report, err := profile.Run(ctx, options)
	closeShow()
	return a.conclude(report, err)
}

// loadRun loads the sweep, and names the bundle's folder where dir is "".
func (a *app) loadRun(ctx context.Context, f *runFlags, shard profile.Shard, opener *driverOpener, dir string) (*sweep, string, error) {
	s, err := loadSweep(ctx, f.sweepFlags, false)
	if err != nil {
		return nil, "", err
	}
	if s.Model == nil {
		return nil, "", usageErrorf("model: there is nothing to measure without one")
	}
	if dir == "" {
		dir = s.dir()
	}
	var description profile.Description
	known := false
	if shard.Count > 0 {
		// A shard that is through is found to be without starting a driver.
		description, known = profile.ShardDriver(dir)
	}
	if !known {
		if description, err = opener.describe(ctx); err != nil {
			return nil, "", err
		}
	}
	s.Options, err = f.planOptions(description.ShareRepeats)
	return s, dir, err
}

func (f *runFlags) runOptions(s *sweep, dir, variant string) profile.RunOptions {
	name := f.Plan
	switch {
	case f.FromBundle != "":
		name = "rows of " + filepath.Base(filepath.Dir(f.FromBundle)) + "/" + filepath.Base(f.FromBundle)
	case f.PlanFile != "":
		name = "file " + filepath.Base(f.PlanFile)
	}
	return profile.RunOptions{
		Dir: dir, Hardware: f.Hardware, Variant: variant,
		Spec: s.engineSpec(0), TPs: s.Options.TPs,
		Plan: func(tp int, e *profile.Engine) (profile.TPPlan, error) {
			return s.planTP(tp, e.Limits, e.AttentionBackend)
		},
		PlanOptions: s.Options, PlanName: name,
		Warmup: f.Warmup, Iterations: f.Iterations, MaxIterations: f.MaxIterations, TargetError: f.TargetError,
		SkipFit: s.sourceUnfitted(),
		FlushL2: f.FlushL2, Deadline: f.Deadline, Retries: negativeForNone(f.Retries), Seed: f.Seed,
		AnchorEvery: f.AnchorEvery, DriftThreshold: f.DriftThreshold,
		OnChange:        profile.EnvironmentPolicy(f.OnChange),
		ProfilerVersion: version(),
	}
}

func negativeForNone(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

// conclude says how the run ended.
func (a *app) conclude(report *profile.Report, err error) error {
	var environment *profile.EnvironmentError
	var hopeless *profile.HopelessError
	var locked *profile.LockedError
	var division *profile.DivisionError
	of, again := "", "profile resume "+report.Dir
	if report.Shard.Count > 0 {
		of, again = fmt.Sprintf(" shard %v:", report.Shard), fmt.Sprintf("%s --shard %v", again, report.Shard)
	}
	switch {
	case errors.As(err, &hopeless):
		listFailed(a.stderr, report.Failed)
		return &exitError{Status: exitPartial, Err: fmt.Errorf("%w\nthe run gave up; to go on: %s", err, again)}
	case errors.As(err, &locked) && report.Shard.Count > 0:
		// What a scheduler lost sight of may still run; it is to try again later.
		return &exitError{Status: exitPartial, Err: err}
	case errors.As(err, &division):
		return &exitError{Status: exitUsage, Err: fmt.Errorf("shard: %w", err)}
	case errors.As(err, &environment):
		return &exitError{Status: exitDrift, Err: fmt.Errorf(
			"%w\n--on-environment-change keep goes on beside them, remeasure measures everything again", err)}
	case errors.Is(err, context.Canceled):
		return &exitError{Status: exitPartial, Err: errors.New("left at once; what was measured is kept: " + again)}
	case err != nil:
		return err
	}
	before := fmt.Sprintf("%d had been before", report.Reused)
	if report.Unbegun {
		before = "it ended before it counted those that had been before, which stay"
	}
	if _, err := fmt.Fprintf(a.stdout, "%s:%s %d shots measured, %s\n", report.Dir, of, report.Measured, before); err != nil {
		return err
	}
	if n := report.Workloads + report.ReusedWorkloads; n > 0 {
		if _, err := fmt.Fprintf(a.stdout, "%s: %d whole steps of %d workloads measured, %d workloads had been before\n",
			report.Dir, report.Steps, report.Workloads, report.ReusedWorkloads); err != nil {
			return err
		}
	}
	if report.Infeasible > 0 {
		fmt.Fprintf(a.stderr, "%d planned shots are beyond the driver's limits: the bundle has no rows for them\n", report.Infeasible)
	}
	if !report.Partial() {
		return nil
	}
	listFailed(a.stderr, report.Failed)
	reason := "ended early"
	if len(report.Failed) > 0 {
		reason = fmt.Sprintf("%d shots failed", len(report.Failed))
	}
	return &exitError{Status: exitPartial, Err: fmt.Errorf("%s; to go on: %s", reason, again)}
}

func listFailed(w io.Writer, failed []profile.FailedShot) {
	for _, s := range failed {
		fmt.Fprintf(w, "failed: tp%d %s %s: %s: %s\n", s.TP, s.Category, s.Shape, s.Status, s.Message)
	}
}

// driverOpener hands out the driver that was asked for its description, if any
// was, and fresh ones after that.
type driverOpener struct {
	flags *sweepFlags
	first profile.Driver
}

// describe asks a driver, which open then hands out first.
func (o *driverOpener) describe(ctx context.Context) (profile.Description, error) {
	driver, err := openDriver(o.flags)
	if err != nil {
		return profile.Description{}, err
	}
	o.first = driver
	return driver.Describe(ctx)
}

func (o *driverOpener) open() (profile.Driver, error) {
	if d := o.first; d != nil {
		o.first = nil
		return d, nil
	}
	return openDriver(o.flags)
}

func (o *driverOpener) close() error {
	if o.first == nil {
		return nil
	}
	return o.first.Close()
}
