// Serving replays a list of requests through a small continuous-batching
// engine whose step times come from a bundle, and prints what each request
// waited for.
//
//	go run ./examples/serving --bundle BUNDLE --requests requests.csv
//
// The engine follows vLLM's V1 scheduler: running requests first, prompts in
// chunks of what is left of max_num_batched_tokens, KV blocks with preemption
// of the request that came last, optional prefix caching. It imports lookups
// only. Left out: speculative decoding, priorities, structured output, LoRA,
// multi-modal inputs, several engines, and whatever time the server's front end
// takes. What passes between the layers' kernels is --host-us a step and
// --host-us-per-request for each request in it.
package main

import (
	"encoding/csv"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("serving", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var (
		limits  Limits
		bundle  = flags.String("bundle", "examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16", "the bundle's folder")
		list    = flags.String("requests", "", "CSV: request, input_tokens, output_tokens, arrival_ns; measured_ttft_s and measured_latency_s to compare with")
		rules   = flags.String("rules", "parity", "parity or accurate")
		tp      = flags.Int("tp", 1, "tensor-parallel degree")
		hostUS  = flags.Float64("host-us", 0, "time a step takes besides its kernels")
		perUS   = flags.Float64("host-us-per-request", 0, "the same for each request of the step")
		out     = flags.String("out", "", "write a CSV with each request's times")
		options traceloader.Options
	)
	flags.IntVar(&limits.MaxNumBatchedTokens, "max-num-batched-tokens", 2048, "most tokens a step")
	flags.IntVar(&limits.MaxNumSeqs, "max-num-seqs", 256, "most requests a step")
	flags.IntVar(&limits.KVBlocks, "kv-blocks", 0, "KV cache blocks; 0: no limit")
	flags.IntVar(&limits.BlockSize, "block-size", 16, "tokens a KV block")
	flags.BoolVar(&limits.PrefixCaching, "prefix-caching", false, "share the blocks of prompts with the same prefix")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	fail := func(err error) int {
		fmt.Fprintln(stderr, "serving:", err)
		return 1
	}
	if *rules == "accurate" {
		options.Rules = traceloader.Accurate
	} else if *rules != "parity" {
		fmt.Fprintf(stderr, "serving: --rules: found %q, expected parity or accurate\n", *rules)
		return 2
	}
	if *list == "" || limits.BlockSize < 1 || limits.MaxNumBatchedTokens < 1 || limits.MaxNumSeqs < 1 {
		fmt.Fprintln(stderr, "serving: expected --requests, and limits of at least 1")
		return 2
	}
	in, err := os.Open(*list)
	if err != nil {
		return fail(err)
	}
	defer in.Close()
	requests, err := readRequests(*list, in)
	if err != nil {
		return fail(err)
	}
	table, err := traceloader.Open(*bundle, options)
	if err != nil {
		return fail(err)
	}
	walk, err := table.Walk(*tp)
	if err != nil {
		return fail(err)
	}
	outcome, err := serve(requests, limits, stepTime(walk, int64(*hostUS*1000), int64(*perUS*1000)))
	if err != nil {
		return fail(err)
	}
	if err := report(stdout, requests, outcome); err != nil {
		return fail(err)
	}
	if *out != "" {
		if err := writeRequests(*out, requests); err != nil {
			return fail(err)
		}
	}
	return 0
}

// stepTime fills the hook from a bundle: kernels, and what the host adds.
func stepTime(walk traceloader.Walk, hostNS, perRequestNS int64) StepTime {
	var step traceloader.Step
	return func(batch []perfio.Request) (int64, error) {
		if !walk.Step(traceloader.NewBatch(batch), &step) {
			return 0, fmt.Errorf("no answer for a batch of %d requests", len(batch))
		}
		total, ok := step.TotalNS()
		if !ok {
			return 0, fmt.Errorf("the model's depth is not known")
		}
		return total + hostNS + perRequestNS*int64(len(batch)), nil
	}
}

// report prints means and percentiles, beside the measured ones if there are any.
func report(w io.Writer, requests []*Request, o Outcome) error {
	tokens := 0
	for _, r := range requests {
		tokens += r.OutputTokens
	}
	fmt.Fprintf(w, "%d requests, %d steps, %d preemptions, %.2f s, %.0f output tokens/s\n",
		len(requests), o.Steps, o.Preemptions, float64(o.EndNS)/1e9, float64(tokens)/(float64(o.EndNS)/1e9))
	fmt.Fprintf(w, "%-10s %10s %10s %10s %10s %10s %8s\n", "seconds", "mean", "p50", "p90", "p99", "measured", "error")
	for _, figure := range []struct {
		name      string
		simulated func(*Request) (float64, bool)
		measured  func(*Request) (float64, bool)
	}{
		{"TTFT", func(r *Request) (float64, bool) { return r.TTFT(), true }, func(r *Request) (float64, bool) { return r.MeasuredTTFT, r.MeasuredTTFT > 0 }},
		{"TPOT", (*Request).TPOT, func(r *Request) (float64, bool) {
			v, ok := r.MeasuredTPOT()
			return v, ok && r.MeasuredLatency > 0
		}},
		{"latency", func(r *Request) (float64, bool) { return r.Latency(), true }, func(r *Request) (float64, bool) { return r.MeasuredLatency, r.MeasuredLatency > 0 }},
	} {
		simulated, measured := collect(requests, figure.simulated), collect(requests, figure.measured)
		if len(simulated) == 0 {
			continue
		}
		fmt.Fprintf(w, "%-10s %10.5f %10.5f %10.5f %10.5f", figure.name, mean(simulated), quantile(simulated, 0.5), quantile(simulated, 0.9), quantile(simulated, 0.99))
		if len(measured) > 0 {
			fmt.Fprintf(w, " %10.5f %+7.2f%%", mean(measured), 100*(mean(simulated)/mean(measured)-1))
		}
		fmt.Fprintln(w)
	}
	return nil
}

func collect(requests []*Request, of func(*Request) (float64, bool)) []float64 {
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

func writeRequests(name string, requests []*Request) (err error) {
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
