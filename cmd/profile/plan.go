package main

import (
	"context"
	"encoding/json"
	"errors"
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
		Long: `Say what would be measured: shots by category, how many of them differ, and how
long it takes. No engine is needed: limits come from flags, or from the driver
that --driver names.

--shots prints the shots themselves as JSON lines. Lines can be edited, added
or taken out; --plan-file gives the file back to plan, run and resume.`,
		Args: cobra.NoArgs,
	}
	f := addSweepFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print the counts as JSON")
	shots := cmd.Flags().Bool("shots", false, "print the shots as JSON lines")
	cmd.MarkFlagsMutuallyExclusive("json", "shots")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		plan, steps, pace, err := makePlan(cmd.Context(), f)
		if err != nil {
			return err
		}
		if *shots {
			_, err := plan.WriteTo(a.stdout)
			return err
		}
		summary := plan.Summarize(pace)
		if *asJSON {
			return json.NewEncoder(a.stdout).Encode(struct {
				profile.Summary
				Steps []plannedSteps `json:"steps,omitempty"`
			}{summary, steps})
		}
		return errors.Join(printSummary(a.stdout, summary), printSteps(a.stdout, steps))
	}
	return cmd
}

// makePlan plans under the flags' limits or the named driver's.
func makePlan(ctx context.Context, f *sweepFlags) (plan *profile.Plan, steps []plannedSteps, pace float64, err error) {
	if f.Driver == "" {
		s, err := loadSweep(ctx, f, true)
		if err != nil {
			return nil, nil, 0, err
		}
		plan, err = s.plan(s.limits(), f.Kernel)
		return plan, nil, 0, err
	}
	driver, err := openDriver(f)
	if err != nil {
		return nil, nil, 0, err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	description, err := driver.Describe(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	s, err := loadSweep(ctx, f, description.ShareRepeats)
	if err != nil {
		return nil, nil, 0, err
	}
	if s.Model == nil {
		return nil, nil, 0, usageErrorf("model: a driver's limits need a model to boot")
	}
	options, err := f.stepOptions(ctx, driver, s)
	if err != nil {
		return nil, nil, 0, err
	}
	if _, serves := driver.(profile.StepDriver); options != nil && serves {
		limits := s.limits()
		limits.CacheTokens = 0
		steps = planSteps(options, limits, s.Model.NumHiddenLayers, f.Seed)
	}
	plan = &profile.Plan{Options: s.Options}
	if options != nil && options.Alone {
		return plan, steps, description.PaceShotsPerSecond, nil
	}
	for _, tp := range s.Options.TPs {
		engine, err := driver.Boot(ctx, s.engineSpec(tp))
		if err != nil {
			return nil, nil, 0, fmt.Errorf("tp%d: %w", tp, err)
		}
		tpPlan, err := s.planTP(tp, engine.Limits, engine.AttentionBackend)
		if err != nil {
			return nil, nil, 0, err
		}
		plan.Limits = engine.Limits
		plan.TPs = append(plan.TPs, tpPlan)
	}
	return plan, steps, description.PaceShotsPerSecond, nil
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
	estimate := time.Duration(s.EstimatedSeconds * float64(time.Second))
	if estimate >= time.Second {
		estimate = estimate.Round(time.Second)
	}
	_, err := fmt.Fprintf(w, "%d shots to measure, about %s (%s)\n", s.MeasuredShots, estimate.Round(time.Millisecond), source)
	return err
}
