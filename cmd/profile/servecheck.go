package main

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/layerprof/layerprof/examples/serving/sim"
	"github.com/layerprof/layerprof/internal/atomicfile"
	"github.com/layerprof/layerprof/internal/servecheck"
	"github.com/layerprof/layerprof/internal/stepjudge"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/traceloader"
)

// serveCheck is the verb and its flags.
type serveCheck struct {
	*app
	sweep    *sweepFlags
	requests string
	modes    []string
	rules    string
	maxError float64
	layers   int
}

func newServeCheckCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve-check BUNDLE",
		Short: "Hold a bundle against the engine serving requests",
		Long: `Boot the real engine at full depth, once a mode, have it serve a list of requests
in this host's process, keep what each step and each request took, and hold the
bundle's answers against it. The model, the data types and the limits are those
of the bundle, but for flags that are given.

--requests is a CSV with the columns request, input_tokens, output_tokens and
arrival_ns; without it a random list is made, sized by the limits. --out gets
steps_MODE.jsonl.gz and requests_MODE.csv, which "perfcheck steps" reads too,
report.txt and report.json. The exit status is 5 where --max-error is exceeded.

SIGINT, SIGTERM and SIGUSR1 end it at once while an engine boots, and after the
list that is being served; a second signal leaves at once. Modes that are
through are in the report; the exit status is 3, but where the list was served to
its end in the last mode: then nothing is left, and it is 0 or 5.`,
		Args: cobra.ExactArgs(1),
	}
	c := &serveCheck{app: a, sweep: addEngineFlags(cmd)}
	// Nothing is planned; the defaults are valid.
	c.sweep.addPlanFlags(pflag.NewFlagSet("", pflag.ContinueOnError))
	flags := cmd.Flags()
	flags.StringVar(&c.requests, "requests", "", "CSV `file` with the requests to serve (default: a random list)")
	flags.StringSliceVar(&c.modes, "mode", nil, "`modes` to serve in (default: those of the driver that the bundle has steps of)")
	// The bundles' folder has no part in this.
	flags.Lookup("driver").Usage = "what serves: vllm or exec:CMD (default: vllm)"
	out := flags.Lookup("out")
	out.Usage, out.DefValue, c.sweep.Out = "`folder` for what was measured and the report", "serve-check", "serve-check"
	flags.StringVar(&c.rules, "rules", "accurate", "lookup rules of the layers: accurate or parity")
	flags.Float64Var(&c.maxError, "max-error", 0, "exit status 5 where the median step or a mean of the requests is further off, in percent (0: no limit)")
	flags.IntVar(&c.layers, "layers", 0, "depth to boot (0: the model's own)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		bundle, err := perfio.OpenBundle(filepath.Clean(args[0]))
		if err != nil {
			return err
		}
		if err := setFlags(cmd, flagsOfMeta(bundle), args[0]); err != nil {
			return err
		}
		c.sweep.Hardware = bundle.Meta.Hardware()
		if c.sweep.Driver == "" {
			c.sweep.Driver = "vllm"
		}
		return c.run(cmd.Context(), bundle)
	}
	return cmd
}

// checkedRun is one mode of report.json.
type checkedRun struct {
	*stepjudge.Report
	Layers       int            `json:"layers"`
	GPU          string         `json:"gpu"`
	CPU          string         `json:"cpu,omitempty"`
	VLLMVersion  string         `json:"vllm_version,omitempty"`
	ModelRunner  string         `json:"model_runner,omitempty"`
	GraphMode    string         `json:"graph_mode,omitempty"`
	Limits       profile.Limits `json:"limits"`
	BootSeconds  float64        `json:"boot_seconds"`
	Served       int            `json:"served_requests"`
	ServedSteps  int            `json:"served_steps"`
	ServedInS    float64        `json:"served_in_s"` // from the first step to the end of the last request
	StepsFile    string         `json:"steps_file"`
	RequestsFile string         `json:"requests_file"`
}

func (c *serveCheck) run(ctx context.Context, bundle *perfio.Bundle) (err error) {
	rules, err := parseRules(c.rules)
	if err != nil {
		return err
	}
	if err := stepjudge.Limit(c.maxError).Check(); err != nil {
		return usageErrorf("max-error: %v", err)
	}
	if c.layers < 0 {
		return usageErrorf("layers: found %d, expected at least 0", c.layers)
	}
	var list []*sim.Request
	if c.requests != "" {
		if list, err = readRequests(c.requests); err != nil {
			return err
		}
	}
	show := newLineProgress(c.stderr)
	defer show.close()
	ended := watchSignals(ctx, 0, show, "the check", "the list of requests in flight")
	defer ended.release()
	defer func() { err = ended.before(err, "the check was through") }()
	s, err := loadSweep(ended.soon, c.sweep, true)
	if err != nil {
		return err
	}
	if s.Model == nil {
		return usageErrorf("model: the bundle does not say which, --model does")
	}
	table, err := traceloader.New(bundle, traceloader.Options{Rules: rules, Architecture: s.Arch, Model: s.Model})
	if err != nil {
		return err
	}
	driver, err := openDriver(c.sweep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	server, ok := driver.(profile.StepDriver)
	if !ok {
		return usageErrorf("driver: found %s, which serves no requests", c.sweep.Driver)
	}
	if c.modes == nil {
		if c.modes, err = servecheck.Modes(ended.soon, driver, bundle); err != nil {
			return err
		}
		if len(c.modes) == 0 {
			return usageErrorf("mode: the bundle has no steps of any mode that %s serves in; --mode names those to serve in", c.sweep.Driver)
		}
	}
	for _, mode := range c.modes {
		if !slices.Contains(perfio.StepModes(), mode) {
			return usageErrorf("mode: found %q, expected some of %v", mode, perfio.StepModes())
		}
		// Before the first boot: what cannot be predicted need not be served.
		if _, err := table.Steps(1, traceloader.StepOptions{Mode: traceloader.StepMode(mode), Depth: cmp.Or(c.layers, s.Model.NumHiddenLayers)}); err != nil {
			return err
		}
	}
	if list == nil {
		list = servecheck.RandomRequests(s.limits(), c.sweep.Seed)
		if err := writeInto(filepath.Join(c.sweep.Out, "requests.csv"), func(w io.Writer) error { return servecheck.WriteList(w, list) }); err != nil {
			return err
		}
	}
	var checked []checkedRun
	for _, mode := range c.modes {
		if err := ended.soon.Err(); err != nil {
			return err
		}
		one, err := c.mode(ended, server, s, table, mode, list)
		if err != nil {
			return err
		}
		checked = append(checked, *one)
		if err := c.report(checked, bundle); err != nil {
			return err
		}
	}
	return c.conclude(checked)
}

// mode serves the list in one mode and compares.
func (c *serveCheck) mode(ended *askedToEnd, server profile.StepDriver, s *sweep, table *traceloader.Table, mode string, list []*sim.Request) (*checkedRun, error) {
	fmt.Fprintf(c.stderr, "%s: starting the engine\n", mode)
	began := time.Now()
	spec := profile.ServingSpec{EngineSpec: s.engineSpec(1), Layers: cmp.Or(c.layers, s.Model.NumHiddenLayers), Mode: mode}
	engine, err := servecheck.Boot(ended.soon, server, spec, list)
	if err != nil {
		return nil, err
	}
	run, err := servecheck.Serve(ended.atOnce, server, engine, spec, list)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c.stderr, "%s: %d requests served in %d steps, %v with the boot\n", mode, len(run.Requests), len(run.Steps), time.Since(began).Round(time.Second))
	steps, requests := filepath.Join(c.sweep.Out, "steps_"+mode+".jsonl.gz"), filepath.Join(c.sweep.Out, "requests_"+mode+".csv")
	if err := errors.Join(
		writeInto(steps, func(w io.Writer) error {
			z := gzip.NewWriter(w)
			return errors.Join(run.WriteSteps(z), z.Close())
		}),
		writeInto(requests, run.WriteRequests),
	); err != nil {
		return nil, err
	}
	report, err := run.Compare(table, requests)
	if err != nil {
		return nil, fmt.Errorf("%s: what was measured is in %s: %w", mode, c.sweep.Out, err)
	}
	e := run.Engine
	out := &checkedRun{
		Report: report, Layers: e.Layers, GPU: e.GPU, CPU: e.CPU, VLLMVersion: e.VLLMVersion, ModelRunner: e.ModelRunner, GraphMode: e.GraphMode,
		Limits: e.Limits, BootSeconds: e.BootSeconds, Served: len(run.Requests), ServedSteps: len(run.Steps),
		StepsFile: filepath.Base(steps), RequestsFile: filepath.Base(requests),
	}
	for _, q := range run.Requests {
		out.ServedInS = max(out.ServedInS, float64(q.ArrivalNS)/1e9+q.MeasuredLatency)
	}
	out.ServedInS -= run.Steps[0].HostMarksUS[profile.MarkSchedule] / 1e6
	return out, nil
}

// report writes report.txt and report.json, which grow with each mode.
func (c *serveCheck) report(checked []checkedRun, bundle *perfio.Bundle) error {
	return errors.Join(
		writeInto(filepath.Join(c.sweep.Out, "report.txt"), func(w io.Writer) error { return writeChecked(w, checked) }),
		writeInto(filepath.Join(c.sweep.Out, "report.json"), func(w io.Writer) error {
			encoder := json.NewEncoder(w)
			encoder.SetIndent("", "  ")
			return encoder.Encode(map[string]any{
				"bundle": map[string]any{
					"hardware": bundle.Meta.Hardware(), "model": bundle.Meta.Model(), "variant": bundle.Meta.Variant(), "gpu": bundle.Meta.GPU(),
					"profiled_at": bundle.Meta.ProfiledAt(),
				},
				"modes": checked,
			})
		}),
	)
}

func writeChecked(w io.Writer, checked []checkedRun) error {
	for _, r := range checked {
		if _, err := fmt.Fprintf(w, "%s, %d layers, vLLM %s: %d requests in %d steps, %.1f s\n", r.GPU, r.Layers, r.VLLMVersion, r.Served, r.ServedSteps, r.ServedInS); err != nil {
			return err
		}
		if err := r.WriteText(w); err != nil {
			return err
		}
	}
	return nil
}

// conclude prints the report and says where the limit is exceeded.
func (c *serveCheck) conclude(checked []checkedRun) error {
	if err := writeChecked(c.stdout, checked); err != nil {
		return err
	}
	for _, r := range checked {
		if worst := r.WorstError(); stepjudge.Limit(c.maxError).Exceeded(worst) {
			return &exitError{Status: exitExceeded, Err: fmt.Errorf("%s: found an error of %.2f%%, expected at most %v%%", r.Mode, worst, c.maxError)}
		}
	}
	return nil
}

func parseRules(name string) (traceloader.Rules, error) {
	switch name {
	case "accurate":
		return traceloader.Accurate, nil
	case "parity":
		return traceloader.Parity, nil
	}
	return 0, usageErrorf("rules: found %q, expected accurate or parity", name)
}

func readRequests(name string) ([]*sim.Request, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	list, err := sim.ReadRequests(name, f)
	return list, errors.Join(err, f.Close())
}

func writeInto(name string, write func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	return atomicfile.Write(name, write)
}
