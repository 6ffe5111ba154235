package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// plannedCampaign is what profile campaign plan --json prints.
type plannedCampaign struct {
	Jobs            []plannedJob `json:"jobs"`
	ShotsLeft       int          `json:"shots_left"`
	ShardsLeft      int          `json:"shards_left"`
	Seconds         float64      `json:"seconds"` // of devices
	EstimateIsGuess bool         `json:"estimate_is_guess,omitempty"`
}

type plannedJob struct {
	Name     string         `json:"name"`
	Hardware string         `json:"hardware"`
	Model    string         `json:"model"`
	Variant  string         `json:"variant,omitempty"`
	TPs      []int          `json:"tps"`
	Bundle   string         `json:"bundle"`
	Shots    int            `json:"shots"`
	Left     int            `json:"left"`
	Seconds  float64        `json:"seconds"`         // of devices, for what is left
	Longest  float64        `json:"longest_seconds"` // of one shard
	Shards   []plannedShard `json:"shards"`
}

type plannedShard struct {
	Shard   string  `json:"shard"`
	Shots   int     `json:"shots"`
	Left    int     `json:"left"`
	Seconds float64 `json:"seconds"`
	Needed  bool    `json:"needed"` // shots are left, or the shards' plan is to be made anew
}

func newCampaignPlanCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan FILE",
		Short: "List a campaign's jobs, what each has left to measure, and how long it takes",
		Args:  cobra.ExactArgs(1),
	}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	shards := cmd.Flags().Bool("shards", false, "list each shard that is to run")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := readCampaign(args[0])
		if err != nil {
			return &exitError{Status: exitUsage, Err: err}
		}
		surveyed, err := a.surveyCampaign(cmd.Context(), c, c.Jobs())
		if err != nil {
			return err
		}
		plan := planCampaign(surveyed)
		if *asJSON {
			return json.NewEncoder(a.stdout).Encode(plan)
		}
		return printCampaign(a.stdout, plan, *shards)
	}
	return cmd
}

func planCampaign(surveyed []surveyedJob) plannedCampaign {
	plan := plannedCampaign{Jobs: []plannedJob{}}
	for _, s := range surveyed {
		job := plannedJob{
			Name: s.Name(), Hardware: s.Hardware.Name, Model: s.Model.ID, Variant: s.Variant.Name, TPs: s.TPs,
			Bundle: s.Dir, Shots: s.survey.Shots, Left: s.survey.Left, Shards: []plannedShard{},
		}
		for _, shard := range s.shards {
			job.Shards = append(job.Shards, plannedShard{
				shard.Shard.String(), shard.Shots, shard.Left, shard.Seconds, slices.Contains(s.Needed, shard.Shard.Index),
			})
			job.Seconds += shard.Seconds
			job.Longest = max(job.Longest, shard.Seconds)
		}
		plan.ShardsLeft += len(s.Needed)
		plan.ShotsLeft += job.Left
		plan.Seconds += job.Seconds
		plan.EstimateIsGuess = plan.EstimateIsGuess || !s.paced && job.Left > 0
		plan.Jobs = append(plan.Jobs, job)
	}
	return plan
}

func printCampaign(w io.Writer, plan plannedCampaign, shards bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "job\tshards\tshots\tleft\ttime\tlongest")
	for _, job := range plan.Jobs {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%s\t%s\n", job.Name, len(job.Shards), job.Shots, job.Left, secondsText(job.Seconds), secondsText(job.Longest))
		for _, s := range job.Shards {
			if shards && s.Needed {
				fmt.Fprintf(table, "  shard %s\t\t%d\t%d\t%s\t\n", s.Shard, s.Shots, s.Left, secondsText(s.Seconds))
			}
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	guess := ""
	if plan.EstimateIsGuess {
		guess = " (a guess: no driver's pace is known, an H200's is taken)"
	}
	_, err := fmt.Fprintf(w, "%d bundles; %d shards have %d shots left to measure, about %s of devices%s\n",
		len(plan.Jobs), plan.ShardsLeft, plan.ShotsLeft, secondsText(plan.Seconds), guess)
	return err
}

func secondsText(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d >= 10*time.Second {
		return d.Round(time.Second).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
