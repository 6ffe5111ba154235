package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"

	"github.com/layerprof/layerprof/examples/serving/sim"
)

// figure is a time of requests, simulated and measured, in seconds.
type figure struct {
	name      string
	simulated func(*sim.Request) (float64, bool)
	measured  func(*sim.Request) (float64, bool)
}

func figures() []figure {
	return []figure{
		{"TTFT", func(r *sim.Request) (float64, bool) { return r.TTFT(), true }, func(r *sim.Request) (float64, bool) { return r.MeasuredTTFT, r.MeasuredTTFT > 0 }},
		{"TPOT", (*sim.Request).TPOT, (*sim.Request).MeasuredTPOT},
		{"latency", func(r *sim.Request) (float64, bool) { return r.Latency(), true }, func(r *sim.Request) (float64, bool) { return r.MeasuredLatency, r.MeasuredLatency > 0 }},
	}
}

// report prints means and percentiles and, where the list has measured times,
// theirs, how far the means are apart, and the requests' own errors.
func report(w io.Writer, requests []*sim.Request, o sim.Outcome) error {
	tokens := 0
	for _, r := range requests {
		tokens += r.OutputTokens
	}
	fmt.Fprintf(w, "%d requests, %d steps, %d preemptions, %.2f s, %.0f output tokens/s\n",
		len(requests), o.Steps, o.Preemptions, float64(o.EndNS)/1e9, float64(tokens)/(float64(o.EndNS)/1e9))
	fmt.Fprintf(w, "%-20s %9s %9s %9s %9s %8s   %s\n", "seconds", "mean", "p50", "p90", "p99", "error", "of single requests, p50/p90")
	line := func(name string, values []float64) {
		fmt.Fprintf(w, "%-20s %9.5f %9.5f %9.5f %9.5f", name, mean(values), quantile(values, 0.5), quantile(values, 0.9), quantile(values, 0.99))
	}
	for _, f := range figures() {
		simulated, measured := collect(requests, f.simulated), collect(requests, f.measured)
		if len(simulated) == 0 {
			continue
		}
		line(f.name, simulated)
		if len(measured) > 0 {
			var errors []float64
			for _, r := range requests {
				s, both := f.simulated(r)
				if m, ok := f.measured(r); ok && both {
					errors = append(errors, math.Abs(s/m-1))
				}
			}
			slices.Sort(errors)
			fmt.Fprintf(w, " %+7.2f%%   %.2f%%/%.2f%%\n", 100*(mean(simulated)/mean(measured)-1), 100*quantile(errors, 0.5), 100*quantile(errors, 0.9))
			line(f.name+" measured", measured)
		}
		fmt.Fprintln(w)
	}
	return nil
}

func collect(requests []*sim.Request, of func(*sim.Request) (float64, bool)) []float64 {
	var out []float64
	for _, r := range requests {
		if v, ok := of(r); ok {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

func mean(xs []float64) float64 {
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	return sum / float64(len(xs))
}

// quantile of sorted values, linear between them.
func quantile(xs []float64, q float64) float64 {
	at := q * float64(len(xs)-1)
	i := min(int(at), len(xs)-2)
	if i < 0 {
		return xs[0]
	}
	return xs[i] + (at-float64(i))*(xs[i+1]-xs[i])
}

func writeRequests(name string, requests []*sim.Request) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	w := csv.NewWriter(f)
	if err := w.Write([]string{"request", "input_tokens", "output_tokens", "arrival_ns", "ttft_s", "latency_s"}); err != nil {
		return err
	}
	seconds := func(x float64) string { return strconv.FormatFloat(x, 'f', 6, 64) }
	for _, r := range requests {
		if err := w.Write([]string{r.ID, strconv.Itoa(r.InputTokens), strconv.Itoa(r.OutputTokens),
			strconv.FormatInt(r.ArrivalNS, 10), seconds(r.TTFT()), seconds(r.Latency())}); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}
