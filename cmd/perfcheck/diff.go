package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/bundlediff"
	"github.com/layerprof/layerprof/perfio"
)

func newDiffCommand() *cobra.Command {
	var (
		maxChange, floor string
		largest          int
	)
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two bundles by layer and regime: how much, and is it noise",
		Long: "Diff compares the times that both bundles hold: by layer and regime the median of B/A with its spread (p10…p90),\n" +
			"and the rows that changed most. The noise is what neighbouring rows' ratios scatter. A verdict of change means\n" +
			"that the median is further from 1 than 3 standard errors and than --floor, which stands for what two sessions\n" +
			"on one device differ; change in part, that a tenth of the rows is beyond 6 deviations.\n" +
			"With --max-change the exit status is 5 where a change is larger, or where B lacks a layer of A.",
		Args: exactArgs(2, "two bundles"),
		RunE: func(cmd *cobra.Command, args []string) error {
			options := bundlediff.Options{Largest: largest}
			var err error
			if options.Floor, err = parseShare("--floor", floor); err != nil {
				return err
			}
			if maxChange != "" {
				if options.MaxChange, err = parseShare("--max-change", maxChange); err != nil {
					return err
				}
			}
			if largest < 0 {
				return usagef("--largest: found %d, expected at least 0", largest)
			}
			if largest == 0 {
				options.Largest = -1
			}
			var both [2]*perfio.Bundle
			for i, path := range args {
				if both[i], err = readBundle(path, perfio.Without(perfio.BatchesFile, perfio.SkewFitFile)); err != nil {
					return err
				}
			}
			result := bundlediff.Compare(both[0], both[1], options)
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(result)
			} else {
				err = printDiff(cmd.OutOrStdout(), result)
			}
			if err == nil && result.Exceeded > 0 {
				err = errProblems
			}
			return err
		},
	}
	cmd.Flags().StringVar(&maxChange, "max-change", "", "the change that is allowed, as 5% or 0.05; exit status 5 above it")
	cmd.Flags().StringVar(&floor, "floor", "1%", "what two sessions on one device differ anyway")
	cmd.Flags().IntVar(&largest, "largest", 10, "how many of the largest changes of single rows to list")
	return cmd
}

// parseShare reads 5% or 0.05. A bare number of 1 or more is refused: nobody
// can tell which of the two it means.
func parseShare(flag, text string) (float64, error) {
	digits, percent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(digits, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v > 0) || v > 100 || (!percent && v >= 1) {
		return 0, usagef("%s: found %q, expected a share as 5%% or 0.05", flag, text)
	}
	return v, nil
}

func printDiff(out io.Writer, r *bundlediff.Result) error {
	fmt.Fprintf(out, "A  %s\nB  %s\n", r.A, r.B)
	for _, f := range r.Facts {
		fmt.Fprintf(out, "   %s: %s → %s\n", f.Key, orUnknown(f.A), orUnknown(f.B))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(r.Groups) > 0 {
		fmt.Fprintln(w, "\ntp\tlayer\tregime\trows\tB/A\tp10…p90\tnoise\tverdict")
	}
	for _, g := range r.Groups {
		mark := ""
		if g.Exceeds {
			mark = "  > " + percentText(r.Max)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%.4f\t%.3f…%.3f\t±%.2f%%\t%s%s\n", g.TP, layerName(g.Table, g.Layer), g.Regime, g.N, g.Ratio, g.P10, g.P90, 100*g.Noise, g.Verdict, mark)
	}
	if len(r.Largest) > 0 {
		fmt.Fprintln(w, "\nlargest\ttp\tlayer\tshape\tA us\tB us\tlines\tverdict")
	}
	for _, c := range r.Largest {
		fmt.Fprintf(w, "%.4f\t%d\t%s\t%s\t%.6g\t%.6g\t%d, %d\t%s\n", c.Ratio, c.TP, layerName(c.Table, c.Layer), c.Shape, c.AUS, c.BUS, c.LineA, c.LineB, c.Verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, m := range r.Missing {
		what := "rows"
		if m.All {
			what = "rows, the whole layer"
		}
		fmt.Fprintf(out, "only in %s: tp%d %s: %d %s\n", strings.ToUpper(m.In), m.TP, layerName(m.Table, m.Layer), m.Rows, what)
	}
	if r.Max > 0 {
		fmt.Fprintf(out, "%d of %d groups and layers above %s\n", r.Exceeded, len(r.Groups)+len(r.Missing), percentText(r.Max))
	}
	return nil
}

func percentText(share float64) string { return fmt.Sprintf("%g%%", 100*share) }

// layerName tells the skew sweep's attention from the grid's.
func layerName(table, layer string) string {
	if table == "skew" || table == "collectives" {
		return layer + " (" + table + ")"
	}
	return layer
}
