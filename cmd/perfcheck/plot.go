package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/atomicfile"
	"github.com/layerprof/layerprof/internal/chart"
	"github.com/layerprof/layerprof/perfio"
)

// drawing is a curve or a heat map.
type drawing interface {
	WriteText(w io.Writer) error
	WritePNG(w io.Writer) error
}

func newPlotCommand() *cobra.Command {
	var (
		bundle, output string
		tp             int
	)
	cmd := &cobra.Command{
		Use:   "plot --bundle B LOOKUP [ARGUMENT…]",
		Short: "Draw measured latencies, in the terminal or as PNG",
		Long: "Plot draws the rows that were measured, as text or with --output as PNG:\n" +
			"  dense LAYER | per_sequence LAYER        a curve\n" +
			"  attention PREFILL_CHUNK KV_PREFILL      a heat map over kv_decode and n_decode\n" +
			"  moe                                     a heat map over activated experts and tokens\n" +
			"  step MODE                               whole steps of decodes, the median over their number",
		Example: "  perfcheck plot --bundle perf/H200/Qwen/Qwen3-32B/bf16 dense down_proj\n" +
			"  perfcheck plot --bundle llama.tar.zst --tp 2 attention 512 0 -o attention.png",
		Args: minArgs(1, "dense, per_sequence, attention, moe or step"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if bundle == "" {
				return usagef("found no --bundle, expected a bundle's folder or packed file")
			}
			draw, err := parsePlot(args)
			if err != nil {
				return err
			}
			b, err := readBundle(bundle, perfio.Without(perfio.SkewFile, perfio.SkewFitFile, perfio.BatchesFile))
			if err != nil {
				return err
			}
			degree := &b.TPs[0]
			if cmd.Flags().Changed("tp") {
				if degree = b.TP(tp); degree == nil {
					return fmt.Errorf("%s: found no tp%d, expected one of: %s", bundle, tp, degreeNames(b))
				}
			}
			d, err := draw(b, degree)
			if err != nil {
				return err
			}
			if output == "" {
				return d.WriteText(cmd.OutOrStdout())
			}
			return atomicfile.Write(output, d.WritePNG)
		},
	}
	cmd.Flags().StringVar(&bundle, "bundle", "", "the bundle's folder or packed file")
	cmd.Flags().IntVar(&tp, "tp", 0, "tensor-parallel degree, the bundle's lowest where not given")
	cmd.Flags().StringVarP(&output, "output", "o", "", "the PNG to write; text where there is none")
	return cmd
}

func degreeNames(b *perfio.Bundle) string {
	var names []string
	for _, tp := range b.TPs {
		names = append(names, fmt.Sprintf("tp%d", tp.Degree))
	}
	return strings.Join(names, ", ")
}

// parsePlot reads what is to be drawn.
func parsePlot(args []string) (func(*perfio.Bundle, *perfio.TP) (drawing, error), error) {
	arity, ok := map[string]int{"dense": 1, "per_sequence": 1, "attention": 2, "moe": 0, "step": 1}[args[0]]
	if !ok {
		return nil, usagef("found %q, expected dense, per_sequence, attention, moe or step", args[0])
	}
	rest := args[1:]
	if len(rest) != arity {
		return nil, usagef("%s: found %d arguments, expected %d", args[0], len(rest), arity)
	}
	switch args[0] {
	case "dense":
		return func(b *perfio.Bundle, tp *perfio.TP) (drawing, error) { return chart.Dense(b, tp, rest[0]) }, nil
	case "per_sequence":
		return func(b *perfio.Bundle, tp *perfio.TP) (drawing, error) { return chart.PerSequence(b, tp, rest[0]) }, nil
	case "step":
		return func(b *perfio.Bundle, tp *perfio.TP) (drawing, error) { return chart.Steps(b, tp, rest[0]) }, nil
	case "moe":
		return func(b *perfio.Bundle, tp *perfio.TP) (drawing, error) { return chart.MoE(b, tp) }, nil
	}
	var at [2]int
	for i, text := range rest {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, usagef("attention: found %q, expected a whole number", text)
		}
		at[i] = n
	}
	return func(b *perfio.Bundle, tp *perfio.TP) (drawing, error) { return chart.Attention(b, tp, at[0], at[1]) }, nil
}
