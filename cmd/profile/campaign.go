package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/campaign"
	"github.com/layerprof/layerprof/internal/hardware"
	"github.com/layerprof/layerprof/profile"
)

func newCampaignCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "campaign",
		Short: "Plan and emit the jobs of many bundles, for the scheduler that is there",
		Long: `A campaign file (YAML) names hardware, models, variants, tensor-parallel degrees
and a plan; each combination of the first three is a bundle, measured by a
number of shards ("profile run --shard i/n") that a scheduler runs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.started = false
			return usageErrorf("campaign: expected plan or emit")
		},
	}
	cmd.AddCommand(newCampaignPlanCommand(a), newCampaignEmitCommand(a))
	return cmd
}

// readCampaign reads a campaign file whose flags are profile run's.
func readCampaign(path string) (*campaign.Campaign, error) {
	return campaign.ReadFile(path, func(name, value string) error {
		cmd := &cobra.Command{Use: "run"}
		addRunFlags(cmd)
		if cmd.Flags().Lookup(name) == nil {
			return fmt.Errorf("unknown flag of profile run%s", nearest(name, flagNames(cmd)))
		}
		return cmd.Flags().Set(name, value)
	})
}

// jobFlags are the flags with which a job runs.
func jobFlags(job *campaign.Job) (*runFlags, error) {
	cmd := &cobra.Command{Use: "run"}
	f := addRunFlags(cmd)
	return f, cmd.ParseFlags(job.Args("0")[1:])
}

// surveyedJob is a job with what its bundle lacks.
type surveyedJob struct {
	*campaign.Job
	survey *profile.Survey
	shards []profile.ShardSurvey
	paced  bool // the driver's pace is known
}

// surveyCampaign finds out, for each job, what is left to measure, and in how
// many shards.
func (a *app) surveyCampaign(ctx context.Context, c *campaign.Campaign, jobs []*campaign.Job) ([]surveyedJob, error) {
	var surveyed []surveyedJob
	folders := make(map[string]*campaign.Job)
	for _, job := range jobs {
		s, err := surveyJob(ctx, c, job)
		if err != nil {
			return nil, jobProblem(job, err)
		}
		if other := folders[job.Dir]; other != nil {
			path := job.Model.Path
			if job.Model == other.Model {
				path = job.Variant.Path
			}
			err := fmt.Errorf("the bundle of %s is %s, as that of %s: expected a folder for each, by names of variants", job.Name(), job.Dir, other.Name())
			return nil, &exitError{Status: exitUsage, Err: c.Problem(path, err)}
		}
		folders[job.Dir] = job
		for _, err := range s.survey.Unplanned {
			fmt.Fprintf(a.stderr, "%s: %v: the next shard that runs makes it anew\n", job.Name(), err)
		}
		surveyed = append(surveyed, s)
	}
	return surveyed, nil
}

// jobProblem says what is wrong with a job, with its place in the campaign file
// where it is about what stands there.
func jobProblem(job *campaign.Job, err error) error {
	var exit *exitError
	if errors.As(err, &exit) && exit.Err != nil {
		err = exit.Err
	}
	said, placed := job.Problem(err)
	switch {
	case placed:
		return &exitError{Status: exitUsage, Err: said}
	case exit != nil:
		return &exitError{Status: exit.Status, Err: said}
	}
	return said
}

// divisible says whether the model can be divided for the job's degrees, which
// drivers do that emulate them; a replay takes the rows that there are.
func divisible(s *sweep, job *campaign.Job) error {
	if strings.HasPrefix(s.flags.Driver, "replay:") || profile.TPMode(s.flags.TPMode) != profile.EmulatedTP {
		return nil
	}
	for _, tp := range job.TPs {
		if _, err := s.Model.Divide(tp); err != nil {
			return &exitError{Status: exitUsage, Err: job.TPProblem(tp, err)}
		}
	}
	return nil
}

func surveyJob(ctx context.Context, c *campaign.Campaign, job *campaign.Job) (surveyedJob, error) {
	out := surveyedJob{Job: job}
	f, err := jobFlags(job)
	if err != nil {
		return out, err
	}
	if slices.Contains(f.Only, string(profile.Step)) {
		return out, usageErrorf("only: found step, expected categories that shards measure: profile run --only step measures whole steps into a bundle")
	}
	description, engine, closeDriver, err := planningEngine(ctx, f.sweepFlags)
	if err != nil {
		return out, err
	}
	defer closeDriver()
	s, err := loadSweep(ctx, f.sweepFlags, description.ShareRepeats)
	if err != nil {
		return out, err
	}
	if err := divisible(s, job); err != nil {
		return out, err
	}
	job.Dir = s.dir()
	options := f.runOptions(s, job.Dir, s.variant())
	options.Costs = profile.CostsAt(description.PaceShotsPerSecond)
	out.paced = description.PaceShotsPerSecond > 0
	out.survey, err = profile.NewSurvey(options, func(tp int) (*profile.Engine, error) { return engine(s, tp) })
	if err != nil {
		return out, err
	}
	out.paced = out.paced || out.survey.Paced
	count := c.Shards
	if count == 0 {
		if count, err = automaticShards(c, out.survey); err != nil {
			return out, err
		}
	}
	if out.survey.Left > 0 || len(out.survey.Unplanned) > 0 {
		if err := profile.CheckDivision(job.Dir, profile.Shard{Count: count}); err != nil {
			return out, fmt.Errorf("shards: %w", err)
		}
	}
	out.shards = out.survey.Shards(count)
	job.SetShards(count)
	job.Needed = nil
	for _, shard := range out.shards {
		if shard.Left > 0 {
			job.Needed = append(job.Needed, shard.Shard.Index)
		}
	}
	if len(job.Needed) == 0 && len(out.survey.Unplanned) > 0 {
		job.Needed = []int{0} // measures nothing, and plans
	}
	return out, nil
}

// planShare is how much of a budget the shards of an automatic number are
// planned to take: estimates are rough.
const planShare = 0.8

// automaticShards is the number that a bundle is divided in already, or the
// least whose shards end within the budget.
func automaticShards(c *campaign.Campaign, survey *profile.Survey) (int, error) {
	switch {
	case survey.Begun > 0:
		return survey.Begun, nil
	case c.Budget == 0:
		return 1, nil
	}
	n, err := survey.ShardsWithin(planShare * c.Budget.Seconds())
	if err != nil {
		return 0, fmt.Errorf("budget: %v, of which %.0f%% are planned: %w", c.Budget, 100*planShare, err)
	}
	return n, nil
}

// planningEngine describes the driver and its engine without starting what takes
// a device: the embedded drivers are asked, for others the limits are the
// flags'.
func planningEngine(ctx context.Context, f *sweepFlags) (
	description profile.Description, engine func(*sweep, int) (*profile.Engine, error), closeDriver func(), err error,
) {
	name, _, _ := strings.Cut(f.Driver, ":")
	if name == "vllm" || name == "exec" {
		description = profile.Description{Name: name, Origin: profile.Measured, ShareRepeats: true}
		return description, func(s *sweep, _ int) (*profile.Engine, error) {
			// A lean plan goes by the kernel, which the engine will say; till then
			// by what the hardware is known for.
			spec, _ := hardware.ByKey(f.Hardware)
			backend := ""
			if spec != nil {
				backend = string(spec.Attention)
			}
			return &profile.Engine{Limits: s.limits(), Origin: profile.Measured, AttentionBackend: backend}, nil
		}, func() {}, nil
	}
	driver, err := openDriver(f)
	if err != nil {
		return description, nil, nil, err
	}
	if description, err = driver.Describe(ctx); err != nil {
		return description, nil, nil, err
	}
	return description, func(s *sweep, tp int) (*profile.Engine, error) {
		return driver.Boot(ctx, s.engineSpec(tp))
	}, func() { _ = driver.Close() }, nil // nothing was measured with it
}
