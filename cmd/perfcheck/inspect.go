package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// inspection is what `inspect --json` prints.
type inspection struct {
	Path       string                   `json:"path"`
	Hardware   string                   `json:"hardware"`
	Model      string                   `json:"model"`
	Variant    string                   `json:"variant"`
	Origin     string                   `json:"origin"`
	Provenance map[string]string        `json:"provenance"`
	Limits     perfio.EngineLimits      `json:"limits"`
	TPs        []tpInspection           `json:"tps"`
	Coverage   []traceloader.TPCoverage `json:"coverage"`
	Warnings   []string                 `json:"warnings,omitempty"`
}

type tpInspection struct {
	TP      int            `json:"tp"`
	Rows    map[string]int `json:"rows"`
	Gaps    *gridGaps      `json:"attention_gaps,omitempty"`
	SkewFit *skewFitErrors `json:"skew_fit,omitempty"`
}

// gridGaps counts what the attention grid lacks of the product of its axes.
type gridGaps struct {
	Measured int `json:"measured"`
	// Product is every combination of the axes' values that could be measured:
	// a prefill history needs a chunk, a decode length a decode.
	Product int `json:"product"`
	Missing int `json:"missing"`
}

type skewFitErrors struct {
	Buckets      int     `json:"buckets"`
	NSamples     int     `json:"n_samples"`
	AlphaDefault float64 `json:"alpha_default"`
	RelErrP50    float64 `json:"rel_err_p50"`
	RelErrP90    float64 `json:"rel_err_p90"`
	RelErrP99    float64 `json:"rel_err_p99"`
	SignedMean   float64 `json:"signed_mean"`
}

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
					found, err := inspect(dir)
					if err != nil {
						return err
					}
					if asJSON {
						err = json.NewEncoder(cmd.OutOrStdout()).Encode(found)
					} else {
						err = found.print(cmd.OutOrStdout())
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

func inspect(dir string) (*inspection, error) {
	bundle, err := readBundle(dir)
	if err != nil {
		return nil, err
	}
	// Lenient: a layer that the sequence names and nobody measured is shown, not refused.
	table, err := traceloader.New(bundle, traceloader.Options{Lenient: true})
	if err != nil {
		return nil, err
	}
	meta := bundle.Meta
	out := &inspection{
		Path: dir, Hardware: meta.Hardware(), Model: meta.Model(), Variant: meta.Variant(), Origin: meta.Origin(),
		Limits: meta.Limits(), Coverage: table.Coverage().TPs, Warnings: table.Warnings(),
		Provenance: map[string]string{},
	}
	for name, value := range map[string]string{
		"gpu": meta.GPU(), "profiled_at": meta.ProfiledAt(), "vllm_version": meta.VLLMVersion(), "cuda_version": meta.CUDAVersion(),
		"attention_backend": meta.AttentionBackend(), "model_runner": meta.ModelRunner(), "architecture": meta.Architecture(),
		"skew_statistic": meta.SkewStatistic(),
	} {
		if value != "" {
			out.Provenance[name] = value
		}
	}
	for _, w := range bundle.Warnings {
		out.Warnings = append(out.Warnings, w.Error())
	}
	fit := meta.SkewFit()
	for i := range bundle.TPs {
		tp := &bundle.TPs[i]
		one := tpInspection{TP: tp.Degree, Rows: map[string]int{
			"dense": len(tp.Dense), "per_sequence": len(tp.PerSequence), "attention": len(tp.Attention), "moe": len(tp.MoE),
			"skew": len(tp.Skew), "skew_fit": len(tp.SkewFit), "batches": len(tp.Batches), "collectives": len(tp.Collectives),
		}}
		if len(tp.Attention) > 0 {
			one.Gaps = findGaps(tp.Attention)
		}
		if fit != nil && fit.Enabled {
			for _, f := range fit.PerTP {
				if f.Degree == tp.Degree {
					one.SkewFit = &skewFitErrors{len(tp.SkewFit), f.NSamples, f.AlphaDefault, f.RelErrP50, f.RelErrP90, f.RelErrP99, f.SignedMean}
				}
			}
		}
		out.TPs = append(out.TPs, one)
	}
	return out, nil
}

func findGaps(rows []perfio.AttentionRow) *gridGaps {
	chunks, histories := map[int]bool{}, map[int]bool{}
	decodes, lengths := map[int]bool{}, map[int]bool{}
	for _, r := range rows {
		if r.PrefillChunk > 0 {
			chunks[r.PrefillChunk], histories[r.KVPrefill] = true, true
		}
		if r.NDecode > 0 {
			decodes[r.NDecode], lengths[r.KVDecode] = true, true
		}
	}
	prefill, decode := len(chunks)*len(histories), len(decodes)*len(lengths)
	g := &gridGaps{Measured: len(rows), Product: prefill + decode + prefill*decode}
	g.Missing = g.Product - g.Measured
	return g
}

func (in *inspection) print(out io.Writer) error {
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
