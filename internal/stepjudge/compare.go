package stepjudge

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// Options say which engine the run was of.
type Options struct {
	TP    int // 0: 1
	Steps traceloader.StepOptions
	// SkipFirst is the number of steps at the beginning that are not judged; 0: 2,
	// negative: none.
	SkipFirst int
	// SkipRequests is the number of requests, the first by arrival, that are
	// replayed and not judged: those that waited for one-off compilation.
	SkipRequests int
	// Each is called with every step that is judged; nil: nobody.
	Each func(JudgedStep)
}

const defaultSkip = 2

// Kinds of steps.
const (
	KindAll    = "all"
	KindDecode = "decode"
	KindMixed  = "with prefill"
)

// Figures are errors of one kind of step: |predicted/measured - 1| in percent.
type Figures struct {
	Kind          string  `json:"kind"`
	N             int     `json:"n"`
	P50           float64 `json:"p50"`
	P90           float64 `json:"p90"`
	P99           float64 `json:"p99"`
	Bias          float64 `json:"bias"`                // the median of the signed error
	Total         float64 `json:"total"`               // of the sum of all steps' times
	MeasuredUS    float64 `json:"measured_us"`         // median
	PredictedUS   float64 `json:"predicted_us"`        // median
	RepeatP50     float64 `json:"repeat_p50"`          // of the run against itself: a decode step against the median of the 11 most alike
	RepeatP90     float64 `json:"repeat_p90"`          // likewise
	RepeatN       int     `json:"repeat_n"`            // steps that have such
	WithinOne     float64 `json:"within_one"`          // share of steps within one sigma of the prediction; 0 where sigma is not known
	LaunchBound   float64 `json:"launch_bound"`        // share
	HostBound     float64 `json:"host_bound"`          // share
	KernelsOnly   bool    `json:"kernels_only"`        // the prediction is a sum of layers
	KernelsBiasPc float64 `json:"sum_of_kernels_bias"` // the median of what the sum of the layers alone errs by
}

// JudgedStep is a measured step and what was said of it.
type JudgedStep struct {
	Step        *Step
	Batch       traceloader.Batch
	MeasuredUS  float64
	PredictedUS float64
	Time        traceloader.StepTime // the prediction's parts
}

type judged struct {
	step                *Step
	measured, predicted float64
	kernels, sigma      float64
	decode              bool
	bound               traceloader.StepBound
}

// CompareSteps predicts each measured step from its batch.
func CompareSteps(table *traceloader.Table, o Options, steps []Step) ([]Figures, error) {
	answers, err := table.Steps(max(o.TP, 1), o.Steps)
	if err != nil {
		return nil, err
	}
	skip := o.SkipFirst
	if skip == 0 {
		skip = defaultSkip
	}
	clock := traceloader.NewStepClock(answers)
	var all []judged
	var startNS int64
	for i := range steps {
		// The clock goes its own way from one idle engine to the next.
		if i == 0 || !continues(&steps[i]) {
			clock = traceloader.NewStepClock(answers)
			startNS = 0
		}
		b := traceloader.NewBatch(steps[i].Requests)
		span, ok := clock.Submit(b, startNS)
		if !ok {
			return nil, fmt.Errorf("step %d: no answer for a batch of %d requests", i+1, len(b.Requests))
		}
		startNS = span.ReadyNS
		if i < skip || i+1 == len(steps) || !continues(&steps[i+1]) {
			continue
		}
		t := clock.Last()
		measured, predicted := steps[i+1].StartUS-steps[i].StartUS, float64(span.ReadyNS-span.StartNS)/1e3
		if o.Each != nil {
			o.Each(JudgedStep{Step: &steps[i], Batch: b, MeasuredUS: measured, PredictedUS: predicted, Time: *t})
		}
		all = append(all, judged{
			step: &steps[i], measured: measured, predicted: predicted,
			kernels: float64(t.KernelsNS) / 1e3, sigma: t.Sigma, decode: b.PrefillChunk == 0, bound: t.Bound,
		})
	}
	if len(all) == 0 {
		return nil, errors.New("found no step that another one follows at once")
	}
	kernelsOnly := o.Steps.Mode == traceloader.KernelsOnly || clock.Last().KernelsOnly
	var out []Figures
	for _, kind := range []string{KindAll, KindDecode, KindMixed} {
		var of []judged
		for _, j := range all {
			if kind == KindAll || j.decode == (kind == KindDecode) {
				of = append(of, j)
			}
		}
		if len(of) > 0 {
			f := figures(kind, of)
			f.KernelsOnly = kernelsOnly
			out = append(out, f)
		}
	}
	return out, nil
}

// continues tells whether some request of the step was there before it.
func continues(s *Step) bool {
	return slices.ContainsFunc(s.Requests, func(q perfio.Request) bool { return q.KVHistory > 0 })
}

func figures(kind string, of []judged) Figures {
	f := Figures{Kind: kind, N: len(of)}
	var errs, signed, measured, predicted, kernels []float64
	sumMeasured, sumPredicted, within, known := 0.0, 0.0, 0.0, 0.0
	for _, j := range of {
		e := j.predicted/j.measured - 1
		errs, signed = append(errs, math.Abs(e)), append(signed, e)
		measured, predicted = append(measured, j.measured), append(predicted, j.predicted)
		kernels = append(kernels, j.kernels/j.measured-1)
		sumMeasured += j.measured
		sumPredicted += j.predicted
		if j.sigma > 0 {
			known++
			if math.Abs(e) <= j.sigma {
				within++
			}
		}
		switch j.bound {
		case traceloader.LaunchBound:
			f.LaunchBound += 1 / float64(len(of))
		case traceloader.HostBound:
			f.HostBound += 1 / float64(len(of))
		}
	}
	f.P50, f.P90, f.P99 = 100*quantile(errs, 0.5), 100*quantile(errs, 0.9), 100*quantile(errs, 0.99)
	f.Bias, f.Total = 100*quantile(signed, 0.5), 100*(sumPredicted/sumMeasured-1)
	f.MeasuredUS, f.PredictedUS = quantile(measured, 0.5), quantile(predicted, 0.5)
	f.KernelsBiasPc = 100 * quantile(kernels, 0.5)
	if known > 0 {
		f.WithinOne = within / known
	}
	repeats := repeatErrors(of)
	f.RepeatN = len(repeats)
	f.RepeatP50, f.RepeatP90 = 100*quantile(repeats, 0.5), 100*quantile(repeats, 0.9)
	return f
}

const alike = 11

// repeatErrors is how far a decode step of the run is from the median of the
// steps of as many requests and the nearest total history: what no prediction
// from the batch can be better than.
func repeatErrors(of []judged) []float64 {
	type decode struct{ kv, us float64 }
	byCount := make(map[int][]decode)
	for _, j := range of {
		if !j.decode {
			continue
		}
		kv := 0
		for _, q := range j.step.Requests {
			kv += q.KVHistory
		}
		byCount[len(j.step.Requests)] = append(byCount[len(j.step.Requests)], decode{float64(kv), j.measured})
	}
	var out []float64
	for _, group := range byCount {
		if len(group) <= alike {
			continue
		}
		slices.SortFunc(group, func(a, b decode) int {
			switch {
			case a.kv < b.kv:
				return -1
			case a.kv > b.kv:
				return 1
			}
			return 0
		})
		for i := range group {
			from := min(max(0, i-alike/2), len(group)-alike-1)
			var others []float64
			for k := from; k <= from+alike; k++ {
				if k != i {
					others = append(others, group[k].us)
				}
			}
			out = append(out, math.Abs(quantile(others, 0.5)/group[i].us-1))
		}
	}
	return out
}

// quantile of the values, linear between them; 0 of none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	at := q * float64(len(sorted)-1)
	i := min(int(at), len(sorted)-2)
	if i < 0 {
		return sorted[0]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}
