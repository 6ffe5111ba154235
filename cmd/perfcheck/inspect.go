package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/inspection"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

func newInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect PATH…",
		Short: "Say what the bundles at or below the paths hold",
		Long: "Inspect prints a bundle's hardware, model and variant, where its numbers come from, the layers and the\n" +
			"range and count of each axis, what is missing in the attention grid, and the errors of the skew fit.",
		Args: minArgs(1, "the paths of bundles"),
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, _ := cmd.Flags().GetBool("json")
			for _, path := range args {
				dirs, err := findBundles(path)
				if err != nil {
					return err
				}
				for _, dir := range dirs {
					bundle, err := readBundle(dir)
					if err != nil {
						return err
					}
					found, err := inspection.Of(bundle)
					if err != nil {
						return err
					}
					if asJSON {
						err = json.NewEncoder(cmd.OutOrStdout()).Encode(found)
					} else {
						err = printInspection(cmd.OutOrStdout(), found)
					}
					if err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

func printInspection(out io.Writer, in *inspection.Inspection) error {
	fmt.Fprintf(out, "%s\n  %s, %s, %s", in.Path, orUnknown(in.Hardware), orUnknown(in.Model), orUnknown(in.Variant))
	if in.Origin != perfio.OriginMeasured {
		fmt.Fprintf(out, "  [%s: not measured on this hardware]", strings.ToUpper(in.Origin))
	}
	fmt.Fprintln(out)
	for _, name := range []string{"gpu", "profiled_at", "vllm_version", "cuda_version", "model_runner", "attention_backend", "architecture"} {
		if v := in.Provenance[name]; v != "" {
			fmt.Fprintf(out, "  %-22s %s\n", name, v)
		}
	}
	l := in.Limits
	fmt.Fprintf(out, "  %-22s max_num_batched_tokens %d, max_num_seqs %d, max_model_len %d, block_size %d (0: not recorded)\n",
		"limits", l.MaxNumBatchedTokens, l.MaxNumSeqs, l.MaxModelLen, l.BlockSize)
	for i, tp := range in.TPs {
		fmt.Fprintf(out, "  tp%d\n", tp.TP)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		c := in.Coverage[i]
		for _, curve := range []struct {
			table  string
			axis   string
			layers []traceloader.LayerCoverage
		}{{"dense", "tokens", c.Dense}, {"per_sequence", "sequences", c.PerSequence}} {
			for _, layer := range curve.layers {
				fmt.Fprintf(w, "    %s\t%s\t%s %s\n", curve.table, layer.Layer, curve.axis, rangeText(layer.Range))
			}
		}
		if a := c.Attention; a != nil {
			fmt.Fprintf(w, "    attention\t%d rows\tprefill_chunk %s, kv_prefill %s, n_decode %s, kv_decode %s\n", a.Points,
				rangeText(a.PrefillChunk), rangeText(a.KVPrefill), rangeText(a.NDecode), rangeText(a.KVDecode))
			fmt.Fprintf(w, "    \tgaps\t%d of %d combinations of the axes not measured\n", tp.Gaps.Missing, tp.Gaps.Product)
		}
		if m := c.MoE; m != nil {
			fmt.Fprintf(w, "    moe\t%d rows\ttokens %s, activated_experts %s\n", m.Points, rangeText(m.Tokens), rangeText(m.ActivatedExperts))
		}
		if n := tp.Rows["skew"]; n > 0 {
			fmt.Fprintf(w, "    skew\t%d rows\ttimes are a %s over the timed runs\n", n, in.Provenance["skew_statistic"])
		}
		if f := tp.SkewFit; f != nil {
			fmt.Fprintf(w, "    skew_fit\t%d buckets\t%d samples, alpha_default %g, error p50 %.2f%% p90 %.2f%% p99 %.2f%%, mean %+.2f%%\n",
				f.Buckets, f.NSamples, f.AlphaDefault, 100*f.RelErrP50, 100*f.RelErrP90, 100*f.RelErrP99, 100*f.SignedMean)
		}
		if n := tp.Rows["collectives"]; n > 0 {
			fmt.Fprintf(w, "    collectives\t%d rows\t\n", n)
		}
		if n := tp.Rows["step"]; n > 0 {
			fmt.Fprintf(w, "    step\t%d rows\t%s\n", n, strings.Join(tp.StepModes, ", "))
		}
		if n := tp.Rows["batches"]; n > 0 {
			fmt.Fprintf(w, "    batches\t%d batches\t\n", n)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	for _, w := range in.Warnings {
		fmt.Fprintf(out, "  warning: %s\n", w)
	}
	_, err := fmt.Fprintln(out)
	return err
}

func rangeText(r traceloader.Range) string { return fmt.Sprintf("%d…%d (%d)", r.Min, r.Max, r.Count) }

func orUnknown(s string) string {
	if s == "" {
		return "(not recorded)"
	}
	return s
}
