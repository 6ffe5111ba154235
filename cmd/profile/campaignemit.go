package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/campaign"
)

func newCampaignEmitCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "emit FILE --target slurm|kubernetes|shell",
		Short: "Write what a scheduler takes to run a campaign",
		Long: `Write a campaign's jobs for a scheduler: sbatch array scripts, Kubernetes
Indexed Jobs, or plain commands. Shards that have nothing left to measure, as
far as the folder of bundles can be seen from here, are left out.

With --output the files are written into a folder and named on standard output;
without, the one file that there is for the hardware goes to standard output.`,
		Args: cobra.ExactArgs(1),
	}
	target := cmd.Flags().String("target", "", "slurm, kubernetes or shell")
	output := cmd.Flags().StringP("output", "o", "", "`folder` to write the files into")
	hardware := cmd.Flags().StringSlice("hardware", nil, "only the jobs on these")
	all := cmd.Flags().Bool("all", false, "also shards that have nothing left to measure")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(campaign.Targets, campaign.Target(*target)) {
			return usageErrorf("target: found %q, expected slurm, kubernetes or shell", *target)
		}
		c, err := readCampaign(args[0])
		if err != nil {
			return &exitError{Status: exitUsage, Err: err}
		}
		jobs, err := jobsOn(c, *hardware)
		if err != nil {
			return err
		}
		if _, err := surveyCampaign(cmd.Context(), c, jobs); err != nil {
			return err
		}
		if *all {
			for _, job := range jobs {
				job.SetShards(job.Shards)
			}
		}
		files, err := c.Emit(campaign.Target(*target), jobs)
		if err != nil {
			return &exitError{Status: exitUsage, Err: err}
		}
		if *output == "" {
			return printEmitted(a.stdout, files)
		}
		return writeEmitted(a.stdout, *output, files)
	}
	return cmd
}

// jobsOn are the campaign's jobs on the hardware named; none: on all.
func jobsOn(c *campaign.Campaign, hardware []string) ([]*campaign.Job, error) {
	for _, name := range hardware {
		if !slices.ContainsFunc(c.Hardware, func(h campaign.Hardware) bool { return h.Name == name }) {
			return nil, usageErrorf("hardware: found %q, which %s has not", name, c.File)
		}
	}
	return slices.DeleteFunc(c.Jobs(), func(j *campaign.Job) bool {
		return len(hardware) > 0 && !slices.Contains(hardware, j.Hardware.Name)
	}), nil
}

// printEmitted prints the only file of jobs.
func printEmitted(w io.Writer, files []campaign.File) error {
	jobs := files[:len(files)-1] // the last one is for after them
	if len(jobs) == 0 {
		return &exitError{Status: exitFailure, Err: fmt.Errorf("every shard is measured: there is no job to write; --all writes them all the same")}
	}
	if len(jobs) > 1 {
		var names []string
		for _, f := range jobs {
			names = append(names, f.Name)
		}
		return usageErrorf("output: there are %d files, %s: expected --output FOLDER, or --hardware for one of them", len(jobs), strings.Join(names, ", "))
	}
	_, err := io.WriteString(w, jobs[0].Text)
	return err
}

func writeEmitted(w io.Writer, dir string, files []campaign.File) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for _, f := range files {
		mode := os.FileMode(0o644)
		if f.Executable {
			mode = 0o755
		}
		path := filepath.Join(dir, f.Name)
		if err := os.WriteFile(path, []byte(f.Text), mode); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w, path); err != nil {
			return err
		}
	}
	return nil
}
