package main

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/examples/serving/sim"
	"github.com/layerprof/layerprof/internal/atomicfile"
	"github.com/layerprof/layerprof/internal/stepjudge"
	"github.com/layerprof/layerprof/traceloader"
)

func newStepsCommand() *cobra.Command {
	var (
		flags    tableFlags
		engine   stepFlags
		limits   sim.Limits
		tp, skip int
		compiled int
		file     string
		requests string
		each     string
		maxError float64
	)
	cmd := &cobra.Command{
		Use:   "steps --bundle B | --root R … --steps FILE [--requests FILE]",
		Short: "Hold predicted steps and requests against a real engine's run",
		Long: "Steps reads what an engine did, as `profile serve-check` writes it: --steps, JSON lines\n" +
			"{\"requests\":[[new_tokens,kv_history],…],\"start_us\":…} in the order of their start, gzipped or not; --requests, a CSV with the\n" +
			"columns request,input_tokens,output_tokens,arrival_ns,measured_ttft_s,measured_latency_s.\n" +
			"A step is the time from its start to the next one's while the engine is busy. Errors are percent; bias is the median of the\n" +
			"signed error, total that of all steps' sum; \"itself\" is how far a decode step of the run is from the median of the 11 most\n" +
			"like it, which no prediction by the batch can beat. Requests are replayed through the engine of examples/serving.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, _ := cmd.Flags().GetBool("json")
			if file == "" && requests == "" {
				return usagef("found neither --steps nor --requests")
			}
			if each != "" && file == "" {
				return usagef("found --each without --steps")
			}
			if err := limits.Check(); err != nil {
				return usagef("--%v", err)
			}
			if err := stepjudge.Limit(maxError).Check(); err != nil {
				return usagef("--max-error: %v", err)
			}
			if skip < 0 || compiled < 0 {
				return usagef("--skip-first %d, --skip-requests %d: expected at least 0", skip, compiled)
			}
			table, err := flags.open(cmd)
			if err != nil {
				return err
			}
			o := stepjudge.Options{TP: tp, SkipFirst: skip, SkipRequests: compiled}
			if skip == 0 {
				o.SkipFirst = -1
			}
			if o.Steps, err = engine.options(table); err != nil {
				return err
			}
			var steps []stepjudge.Step
			if file != "" {
				if steps, err = stepjudge.ReadSteps(file); err != nil {
					return err
				}
			}
			var judged []stepjudge.JudgedStep
			if each != "" {
				o.Each = func(j stepjudge.JudgedStep) { judged = append(judged, j) }
			}
			report, err := stepjudge.Compare(table, o, steps, limits, requests)
			if err != nil {
				return err
			}
			if each != "" {
				if err := atomicfile.Write(each, func(w io.Writer) error { return stepjudge.WriteEach(w, judged) }); err != nil {
					return err
				}
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(report)
			} else {
				err = report.WriteText(cmd.OutOrStdout())
			}
			if err == nil && stepjudge.Limit(maxError).Exceeded(report.WorstError()) {
				return errProblems
			}
			return err
		},
	}
	flags.register(cmd)
	engine.register(cmd)
	cmd.Flags().IntVar(&tp, "tp", 1, "tensor-parallel degree")
	cmd.Flags().StringVar(&file, "steps", "", "a file of measured steps")
	cmd.Flags().StringVar(&requests, "requests", "", "a file of requests with measured times")
	cmd.Flags().StringVar(&each, "each", "", "write a CSV with every step, measured and predicted, and the prediction's parts")
	cmd.Flags().IntVar(&skip, "skip-first", 2, "steps at the run's beginning that are not judged")
	cmd.Flags().IntVar(&compiled, "skip-requests", 0, "requests, the first by arrival, that are replayed and not judged")
	cmd.Flags().Float64Var(&maxError, "max-error", 0, "exit status 5 where the median step or a mean of the requests is further off, in percent (0: no limit)")
	cmd.Flags().IntVar(&limits.MaxNumBatchedTokens, "max-num-batched-tokens", 2048, "of the engine, for --requests")
	cmd.Flags().IntVar(&limits.MaxNumSeqs, "max-num-seqs", 256, "of the engine, for --requests")
	cmd.Flags().IntVar(&limits.KVBlocks, "kv-blocks", 0, "of the engine, for --requests; 0: no limit")
	cmd.Flags().IntVar(&limits.BlockSize, "block-size", 16, "tokens a KV block")
	return cmd
}

// options are those of traceloader, for any mode.
func (f *stepFlags) options(table *traceloader.Table) (o traceloader.StepOptions, err error) {
	if f.depth < 0 {
		return o, usagef("--depth: found %d, expected at least 0", f.depth)
	}
	if o.Mode, err = traceloader.ParseStepMode(f.mode); err != nil {
		return o, usagef("--mode: %v", err)
	}
	o.Depth = f.depth
	if f.from != "" {
		if o.Mode == traceloader.KernelsOnly {
			return o, usagef("found --steps-from without a --mode that has steps")
		}
		o.From, err = openTable(f.from, traceloader.Options{Rules: table.Rules()})
	}
	return o, err
}
