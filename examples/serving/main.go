// Serving replays a list of requests through a small continuous-batching
// engine whose step times come from a bundle, and prints what its requests
// waited for, beside what those of a real run did.
//
//	go run ./examples/serving --bundle BUNDLE --requests requests.csv
//
// The engine follows vLLM's V1 scheduler: running requests first, prompts in
// chunks of what is left of max_num_batched_tokens, KV blocks with preemption
// of the request that came last, optional prefix caching; with --mode
// graph_async or eager_async it schedules a step ahead of the results, as the
// engine does. It imports lookups only. Left out: speculative decoding,
// priorities, structured output, LoRA, multi-modal inputs, several engines, and
// whatever time the server's front end takes. What passes beside the layers'
// kernels is what step.csv says of --mode; where there is none, --host-us a step
// and --host-us-per-request for each request in it.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/layerprof/layerprof/examples/serving/sim"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// maxHostUS is a minute, beyond which nothing is a step.
const maxHostUS = 60e6

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("serving", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var (
		limits  sim.Limits
		bundle  = flags.String("bundle", "examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16", "the bundle's folder")
		list    = flags.String("requests", "", "CSV: request, input_tokens, output_tokens, arrival_ns; measured_ttft_s and measured_latency_s to compare with")
		rules   = flags.String("rules", "parity", "parity or accurate")
		tp      = flags.Int("tp", 1, "tensor-parallel degree")
		mode    = flags.String("mode", "kernels", "how the engine runs its steps: kernels (their sum), graph_sync, graph_async, eager_sync, eager_async")
		from    = flags.String("steps-from", "", "a bundle of the same host and GPU whose step.csv is used in place of the bundle's own")
		depth   = flags.Int("depth", 0, "decoder blocks; 0: the model's own")
		picture = flags.String("plot", "", "write a PNG with the distributions of the times")
		hostUS  = flags.Float64("host-us", 0, "time a step takes besides its kernels, with --mode kernels")
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
	usage := func(format string, args ...any) int {
		fmt.Fprintf(stderr, "serving: "+format+"\n", args...)
		return 2
	}
	if *rules == "accurate" {
		options.Rules = traceloader.Accurate
	} else if *rules != "parity" {
		return usage("--rules: found %q, expected parity or accurate", *rules)
	}
	stepMode, err := traceloader.ParseStepMode(*mode)
	switch {
	case flags.NArg() > 0:
		return usage("found %q, expected flags alone", flags.Arg(0))
	case *list == "":
		return usage("found no --requests")
	case err != nil:
		return usage("--mode: %v", err)
	case *depth < 0:
		return usage("--depth: found %d, expected at least 0", *depth)
	case *from != "" && stepMode == traceloader.KernelsOnly:
		return usage("found --steps-from without a --mode that has steps")
	case !(*hostUS >= 0 && *hostUS <= maxHostUS):
		return usage("--host-us: found %v, expected 0 to %v", *hostUS, maxHostUS)
	case !(*perUS >= 0 && *perUS <= maxHostUS):
		return usage("--host-us-per-request: found %v, expected 0 to %v", *perUS, maxHostUS)
	case stepMode != traceloader.KernelsOnly && (*hostUS > 0 || *perUS > 0):
		return usage("--host-us with --mode %s: its steps have the host's time in them; only kernels lack it", *mode)
	}
	if err := limits.Check(); err != nil {
		return usage("--%v", err)
	}
	in, err := os.Open(*list)
	if err != nil {
		return fail(err)
	}
	defer in.Close()
	requests, err := sim.ReadRequests(*list, in)
	if err != nil {
		return fail(err)
	}
	table, err := traceloader.Open(*bundle, options)
	if err != nil {
		return fail(err)
	}
	stepOptions := traceloader.StepOptions{Mode: stepMode, Depth: *depth, Pauses: true}
	if *from != "" {
		if stepOptions.From, err = traceloader.Open(*from, options); err != nil {
			return fail(err)
		}
	}
	steps, err := table.Steps(*tp, stepOptions)
	if err != nil {
		return fail(err)
	}
	clock := sim.Clock(traceloader.NewStepClock(steps))
	if *hostUS != 0 || *perUS != 0 {
		clock = kernelsAndHost(steps, int64(*hostUS*1000), int64(*perUS*1000))
	}
	outcome, err := sim.Serve(requests, limits, clock)
	if err != nil {
		return fail(err)
	}
	if err := report(stdout, requests, outcome); err != nil {
		return fail(err)
	}
	if *picture != "" {
		if err := plotTimes(*picture, requests); err != nil {
			return fail(err)
		}
	}
	if *out != "" {
		if err := writeRequests(*out, requests); err != nil {
			return fail(err)
		}
	}
	return 0
}

// kernelsAndHost fills a simulator's step-time hook from a bundle without
// step.csv: kernels, and what the caller says that the host adds.
func kernelsAndHost(steps traceloader.Steps, hostNS, perRequestNS int64) sim.StepTime {
	var step traceloader.StepTime
	return func(batch []perfio.Request) (int64, bool) {
		ok := steps.Time(traceloader.NewBatch(batch), &step)
		return step.TotalNS + hostNS + perRequestNS*int64(len(batch)), ok
	}
}
