package stepjudge

import (
	"fmt"
	"io"

	"github.com/layerprof/layerprof/examples/serving/sim"
	"github.com/layerprof/layerprof/traceloader"
)

// Report is one run of an engine held against a table.
type Report struct {
	Mode  string `json:"mode"`
	Rules string `json:"rules"`
	// KernelsOnly: predictions are sums of layers, whatever the mode.
	KernelsOnly bool             `json:"kernels_only,omitempty"`
	Steps       []Figures        `json:"steps,omitempty"`
	Requests    []RequestFigures `json:"requests,omitempty"`
}

// Compare makes a report of a run's steps and, if requestsFile is not "", of its
// requests, which are replayed under the limits. It is an error where nothing
// of what is given can be judged.
func Compare(table *traceloader.Table, o Options, steps []Step, limits sim.Limits, requestsFile string) (*Report, error) {
	r := &Report{Mode: string(o.Steps.Mode), Rules: table.Rules().String()}
	if r.Mode == "" {
		r.Mode = "kernels"
	}
	predicted, err := table.Steps(max(o.TP, 1), o.Steps)
	if err != nil {
		return nil, err
	}
	r.KernelsOnly = predicted.KernelsOnly()
	if len(steps) > 0 {
		if r.Steps, err = CompareSteps(table, o, steps); err != nil {
			return nil, err
		}
	}
	if requestsFile != "" {
		if r.Requests, err = CompareRequests(table, o, limits, requestsFile); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// WorstError is the largest of the figures that a limit is set on, in percent:
// the median error of all steps, and the errors of the requests' means.
func (r *Report) WorstError() float64 {
	worst := 0.0
	for _, f := range r.Steps {
		if f.Kind == KindAll {
			worst = max(worst, f.P50)
		}
	}
	for _, f := range r.Requests {
		worst = max(worst, f.Error, -f.Error)
	}
	return worst
}

// Limit is the largest error that is allowed, in percent; 0 allows any.
type Limit float64

// Check refuses what is no limit.
func (l Limit) Check() error {
	if !(l >= 0) {
		return fmt.Errorf("found %v, expected a percentage of at least 0", float64(l))
	}
	return nil
}

// Exceeded tells whether an error is larger; one that is not a number is.
func (l Limit) Exceeded(percent float64) bool { return l > 0 && !(percent <= float64(l)) }

// WriteText writes the report as tables.
func (r *Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%s, %s rules\n", r.Mode, r.Rules)
	if r.KernelsOnly {
		fmt.Fprintln(w, "predictions are sums of kernels")
	}
	if len(r.Steps) > 0 {
		fmt.Fprintf(w, "%-13s %6s %9s %9s %6s %6s %6s %6s %6s  %-15s %s\n",
			"steps", "n", "measured", "predicted", "p50", "p90", "p99", "bias", "total", "itself p50/p90", "kernels alone, bias")
		for _, f := range r.Steps {
			itself := "-"
			if f.RepeatN > 0 {
				itself = fmt.Sprintf("%.2f/%.2f", f.RepeatP50, f.RepeatP90)
			}
			fmt.Fprintf(w, "%-13s %6d %9.0f %9.0f %6.2f %6.2f %6.2f %+6.2f %+6.2f  %-15s %+.1f\n",
				f.Kind, f.N, f.MeasuredUS, f.PredictedUS, f.P50, f.P90, f.P99, f.Bias, f.Total, itself, f.KernelsBiasPc)
		}
	}
	if len(r.Requests) > 0 {
		fmt.Fprintf(w, "%-13s %6s %9s %9s %6s %14s\n", "requests", "n", "measured", "predicted", "error", "single p50/p90")
		for _, f := range r.Requests {
			fmt.Fprintf(w, "%-13s %6d %8.4fs %8.4fs %+5.2f%% %7.1f/%.1f%%\n", f.Name, f.N, f.Measured, f.Predicted, f.Error, f.P50, f.P90)
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}
