package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/traceloader"
)

func newCalibrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "calibrate BUNDLE",
		Short: "Fit the accurate rules to a bundle and store the fit beside it",
		Long: "Calibrate writes calibration.json into the bundle's folder: the models chosen and their parameters, their\n" +
			"leave-one-out errors, and a hash of what they were fitted to. Opening the bundle by the accurate\n" +
			"rules is then faster; a calibration of other rows is not used.",
		Args: exactArgs(1, "one bundle's folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if info, err := os.Stat(args[0]); err == nil && !info.IsDir() {
				return fmt.Errorf("%s: found a packed bundle, expected a folder, which %s can be stored in; perfcheck unpack makes one",
					args[0], traceloader.CalibrationFile)
			}
			calibration, err := traceloader.Calibrate(args[0], traceloader.Options{Rules: traceloader.Accurate})
			if err != nil {
				return err
			}
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(calibration)
			}
			out := cmd.OutOrStdout()
			for _, tp := range calibration.TPs {
				if err := printCalibration(out, tp); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintln(out, filepath.Join(args[0], traceloader.CalibrationFile))
			return err
		},
	}
}

// printCalibration says what was chosen for a degree, and by what.
func printCalibration(w io.Writer, tp traceloader.TPCalibration) error {
	if tp.Attention == nil {
		_, err := fmt.Fprintf(w, "tp%d: no attention was measured\n", tp.TP)
		return err
	}
	fmt.Fprintf(w, "tp%d: attention by %s (%d query heads, %d key heads, %d SMs; 0: not known)\n", tp.TP, tp.Attention.Basis, tp.QueryHeads, tp.KVHeads, tp.SMs)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tbasis\trows left out\terror p50, %\tp90\t")
	for _, s := range tp.Attention.Tried {
		fmt.Fprintf(table, "\t%s\t%d\t%.2f\t%.2f\t\n", s.Basis, s.N, s.P50, s.P90)
	}
	for _, s := range tp.Attention.Skew {
		fmt.Fprintf(table, "\t%s\t%d of skew.csv\t%.2f\t%.2f\t\n", s.Basis, s.N, s.P50, s.P90)
	}
	return table.Flush()
}
