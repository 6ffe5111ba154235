package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/tpjudge"
	"github.com/layerprof/layerprof/perfio"
)

func newTPCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "tp REAL EMULATED",
		Short: "Judge emulated tensor parallelism by a real engine's",
		Long: "Tp puts a bundle whose degrees are emulated, on one device with the model's sizes divided, beside one that\n" +
			"profile run --tp-mode real measured on as many devices as the degree: by layer and regime the median of\n" +
			"emulated/real; what the ranks exchange, by size, with waiting apart from the transfer; and whole steps, real\n" +
			"with and without it. Listed are sizes that are powers of two; --all lists every one.",
		Args: exactArgs(2, "a bundle of real degrees and one of emulated ones"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var both [2]*perfio.Bundle
			for i, path := range args {
				var err error
				if both[i], err = readBundle(path, perfio.Without(perfio.SkewFile, perfio.SkewFitFile)); err != nil {
					return err
				}
			}
			result, err := tpjudge.Compare(both[0], both[1])
			if err != nil {
				return err
			}
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(result)
			}
			return printTP(cmd.OutOrStdout(), result, all)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "list every size")
	return cmd
}

func printTP(out io.Writer, r *tpjudge.Result, all bool) error {
	fmt.Fprintf(out, "real      %s\nemulated  %s\n", r.Real, r.Emulated)
	for _, f := range r.Facts {
		fmt.Fprintf(out, "   %s: %s, %s\n", f.Key, orUnknown(f.A), orUnknown(f.B))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\ntp\tlayer\tregime\trows\temulated/real\tp10…p90\tnoise")
	for _, g := range r.Layers {
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%.3f\t%.3f…%.3f\t±%.2f%%\n", g.TP, layerName(g.Table, g.Layer), g.Regime, g.N, g.Ratio, g.P10, g.P90, 100*g.Noise)
	}
	for _, d := range r.Degrees {
		fmt.Fprintf(w, "\ntp%d after\tcollective\ttokens\tbytes\ttransfer us\tGB/s\twaiting us\n", d.TP)
		for i, c := range d.Collectives {
			if last := i == len(d.Collectives)-1 || d.Collectives[i+1].Layer != c.Layer; all || last || powerOfTwo(c.Tokens) {
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%.2f\t%.2f\t%.2f\n", c.Layer, c.Kind, c.Tokens, c.Bytes, c.TimeUS, c.GBPerSecond, c.WaitUS)
			}
		}
		fmt.Fprintf(w, "\ntp%d steps of %d blocks\ttokens\thistory\temulated us\treal layers us\tcollectives us\temulated/layers\temulated/whole\n", d.TP, d.Blocks)
		for _, s := range d.Steps {
			if all || powerOfTwo(s.Tokens) {
				fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%.1f\t%.1f\t%.3f\t%.3f\n", s.Kind, s.Tokens, s.KVHistory, s.EmulatedUS, s.LayersUS, s.CollectivesUS, s.Layers, s.Whole)
			}
		}
		if b := d.Batches; b != nil {
			fmt.Fprintf(w, "%d random batches\t\t\t\t\tshare %.1f%%\t%.3f\t(%.3f…%.3f)\n", b.N, 100*b.CollectivesShare, b.P50, b.P10, b.P90)
		}
		if d.Unanswered > 0 {
			fmt.Fprintf(w, "%d batches have no answer\n", d.Unanswered)
		}
		if len(d.Steps) > 0 {
			whole := make([]float64, len(d.Steps))
			for i, s := range d.Steps {
				whole[i] = s.Whole
			}
			slices.Sort(whole)
			fmt.Fprintf(w, "all %d\t\t\t\t\t\tmedian\t%.3f\n", len(whole), whole[len(whole)/2])
		}
	}
	return w.Flush()
}

func powerOfTwo(n int) bool { return n > 0 && n&(n-1) == 0 }
