package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/profile"
)

func newPlanCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what would be measured, without measuring",
		Args:  cobra.NoArgs,
	}
	f := addSweepFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print the counts as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		opts, err := f.planOptions(true)
		if err != nil {
			return err
		}
		plan, err := profile.NewPlan(f.limits(), nil, opts)
		if err != nil {
			return &exitError{Status: exitUsage, Err: err}
		}
		summary := plan.Summarize(0)
		if *asJSON {
			return json.NewEncoder(a.stdout).Encode(summary)
		}
		return printSummary(a.stdout, summary)
	}
	return cmd
}

func printSummary(w io.Writer, s profile.Summary) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "tp\tcategory\tshots\tunique\tcases\t")
	for _, c := range s.Categories {
		cases := ""
		if c.Cases > 0 {
			cases = fmt.Sprint(c.Cases)
		}
		fmt.Fprintf(table, "%d\t%s\t%d\t%d\t%s\t\n", c.TP, c.Category, c.Shots, c.UniqueShots, cases)
	}
	fmt.Fprintf(table, "\ttotal\t%d\t%d\t\t\n", s.TotalShots, s.UniqueShots)
	if err := table.Flush(); err != nil {
		return err
	}
	source := "at the driver's pace"
	if s.EstimateIsGuess {
		source = "a guess: no driver's pace is known, an H200's is taken"
	}
	estimate := time.Duration(s.EstimatedSeconds * float64(time.Second)).Round(time.Second)
	_, err := fmt.Fprintf(w, "%d shots to measure, about %s (%s)\n", s.MeasuredShots, estimate, source)
	return err
}
