package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/profile"
)

// fitLine is one degree of fit --json.
type fitLine struct {
	TP           int     `json:"tp"`
	NSamples     int     `json:"n_samples"`
	AlphaDefault float64 `json:"alpha_default"`
	RelErrP50    float64 `json:"rel_err_p50"`
	RelErrP90    float64 `json:"rel_err_p90"`
	RelErrP99    float64 `json:"rel_err_p99"`
	SignedMean   float64 `json:"signed_mean"`
}

func newFitCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fit BUNDLE",
		Short: "Fit the skew table of a bundle again",
		Long: `Fit the skew cases of every tp folder of a bundle again and rewrite skew_fit.csv
and the skew_fit block of meta.yaml; nothing else of the bundle changes.`,
		Args: cobra.ExactArgs(1),
	}
	asJSON := cmd.Flags().Bool("json", false, "print the fits as JSON lines")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		fits, err := profile.FitBundle(args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			encoder := json.NewEncoder(a.stdout)
			for _, f := range fits {
				if err := encoder.Encode(fitLine{f.Degree, f.NSamples, f.AlphaDefault, f.RelErrP50, f.RelErrP90, f.RelErrP99, f.SignedMean}); err != nil {
					return err
				}
			}
			return nil
		}
		table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "tp\tcases\talpha\terror p50\tp90\tp99\tmean\t")
		for _, f := range fits {
			fmt.Fprintf(table, "%d\t%d\t%.4f\t%.2f%%\t%.2f%%\t%.2f%%\t%+.2f%%\t\n", f.Degree, f.NSamples, f.AlphaDefault,
				100*f.RelErrP50, 100*f.RelErrP90, 100*f.RelErrP99, 100*f.SignedMean)
		}
		return table.Flush()
	}
	return cmd
}
