package stepjudge

import (
	"fmt"
	"math"
	"os"

	"github.com/layerprof/layerprof/examples/serving/sim"
	"github.com/layerprof/layerprof/traceloader"
)

// RequestFigures hold one time of the requests, simulated and measured, in
// seconds.
type RequestFigures struct {
	Name      string  `json:"name"` // ttft, tpot or latency
	N         int     `json:"n"`
	Measured  float64 `json:"measured_s"`  // mean
	Predicted float64 `json:"predicted_s"` // mean
	Error     float64 `json:"error"`       // of the means, percent
	P50       float64 `json:"p50"`         // of single requests, |predicted/measured - 1| in percent
	P90       float64 `json:"p90"`
}

// CompareRequests replays a request list with measured times through the small
// engine of examples/serving. It is an error where no request is left to judge,
// or none has a measured time.
func CompareRequests(table *traceloader.Table, o Options, limits sim.Limits, file string) ([]RequestFigures, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	requests, err := sim.ReadRequests(file, in)
	if err != nil {
		return nil, err
	}
	if o.SkipRequests < 0 || o.SkipRequests >= len(requests) {
		return nil, fmt.Errorf("%s: found %d requests, of which %d are left out: expected some to judge by", file, len(requests), o.SkipRequests)
	}
	o.Steps.Pauses = true // requests live through all of them
	steps, err := table.Steps(max(o.TP, 1), o.Steps)
	if err != nil {
		return nil, err
	}
	if _, err := sim.Serve(requests, limits, traceloader.NewStepClock(steps)); err != nil {
		return nil, err
	}
	var out []RequestFigures
	for _, f := range []struct {
		name                string
		predicted, measured func(*sim.Request) (float64, bool)
	}{
		{"ttft", func(r *sim.Request) (float64, bool) { return r.TTFT(), true }, func(r *sim.Request) (float64, bool) { return r.MeasuredTTFT, r.MeasuredTTFT > 0 }},
		{"tpot", (*sim.Request).TPOT, (*sim.Request).MeasuredTPOT},
		{"latency", func(r *sim.Request) (float64, bool) { return r.Latency(), true }, func(r *sim.Request) (float64, bool) { return r.MeasuredLatency, r.MeasuredLatency > 0 }},
	} {
		r := RequestFigures{Name: f.name}
		var errs []float64
		for _, q := range requests[o.SkipRequests:] {
			p, ok := f.predicted(q)
			m, measured := f.measured(q)
			if !ok || !measured {
				continue
			}
			r.N++
			r.Predicted += p
			r.Measured += m
			errs = append(errs, math.Abs(p/m-1))
		}
		if r.N == 0 {
			continue
		}
		r.Error = 100 * (r.Predicted/r.Measured - 1)
		r.Predicted, r.Measured = r.Predicted/float64(r.N), r.Measured/float64(r.N)
		r.P50, r.P90 = 100*quantile(errs, 0.5), 100*quantile(errs, 0.9)
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: found no measured_ttft_s and no measured_latency_s of a request that judges", file)
	}
	return out, nil
}
