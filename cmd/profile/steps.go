package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// stepFlags say which whole steps are measured.
type stepFlags struct {
	StepModes  []string
	StepLayers []int
	SkipSteps  bool
}

func (f *stepFlags) add(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.StepModes, "step-modes", nil, "`modes` of whole steps: graph_sync, graph_async, eager_sync, eager_async (default: those that the driver has)")
	flags.IntSliceVar(&f.StepLayers, "step-layers", nil, "depths to measure whole steps at (default: the model's own; where it does not fit, half and a quarter)")
	flags.BoolVar(&f.SkipSteps, "skip-steps", false, "leave out the whole steps")
}

// stepOptions are the steps that a run of the driver measures, nil for none: where
// --only names them, and by default where the driver has any and no other plan
// says what to measure.
func (f *sweepFlags) stepOptions(ctx context.Context, driver profile.Driver, s *sweep) (*profile.StepOptions, error) {
	named := slices.Contains(f.Only, string(profile.Step))
	usual := f.Only == nil && !f.SkipSteps && f.PlanFile == ""
	if s.Source != nil {
		tp := s.Source.TP(1)
		usual = usual && tp != nil && len(tp.Steps) > 0
	}
	if !named && !usual {
		return nil, nil
	}
	if len(s.Options.TPs) > 0 && !slices.Contains(s.Options.TPs, 1) {
		if named {
			return nil, usageErrorf("only: found step without tp 1: an emulated degree has no whole steps")
		}
		return nil, nil
	}
	modes, err := profile.StepModesOf(ctx, driver)
	if err != nil {
		return nil, err
	}
	if len(modes) == 0 {
		if named {
			return nil, usageErrorf("only: found step: driver %s serves no requests and has no whole steps", f.Driver)
		}
		return nil, nil
	}
	o := &profile.StepOptions{Modes: modes, Layers: f.StepLayers, Alone: named && len(f.Only) == 1}
	if f.StepModes != nil {
		o.Modes = f.StepModes
	}
	for _, mode := range o.Modes {
		if !slices.Contains(perfio.StepModes(), mode) {
			return nil, usageErrorf("step-modes: found %q, expected some of %v", mode, perfio.StepModes())
		}
	}
	for _, n := range o.Layers {
		if n < 1 || s.Model != nil && n > s.Model.NumHiddenLayers {
			return nil, usageErrorf("step-layers: found %d, expected 1 to the model's depth", n)
		}
	}
	return o, nil
}

// plannedSteps is one workload of one mode and depth.
type plannedSteps struct {
	Mode     string `json:"mode"`
	Layers   int    `json:"layers"`
	Workload string `json:"workload"`
	Requests int    `json:"requests"`
	Steps    int    `json:"steps"`
}

// planSteps lists what would be served. limits are a serving engine's, which has
// a KV cache of its own that is not known before it is booted.
func planSteps(o *profile.StepOptions, limits profile.Limits, depth int, seed int64) []plannedSteps {
	layers := o.Layers
	if layers == nil {
		layers = []int{depth}
	}
	var out []plannedSteps
	for _, mode := range o.Modes {
		for _, n := range layers {
			for _, w := range profile.StepWorkloads(limits, seed) {
				out = append(out, plannedSteps{mode, n, w.Name, len(w.Requests), w.PlannedSteps()})
			}
		}
	}
	return out
}

func printSteps(w io.Writer, list []plannedSteps) error {
	if len(list) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w, "\nwhole steps, about:"); err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "mode\tlayers\tworkload\trequests\tsteps\t")
	for _, p := range list {
		fmt.Fprintf(table, "%s\t%d\t%s\t%d\t%d\t\n", p.Mode, p.Layers, p.Workload, p.Requests, p.Steps)
	}
	return table.Flush()
}
