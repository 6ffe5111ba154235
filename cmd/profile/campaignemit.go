package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/atomicfile"
	"github.com/layerprof/layerprof/internal/campaign"
)

func newCampaignEmitCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "emit FILE --target slurm|kubernetes|shell",
		Short: "Write what a scheduler takes to run a campaign",
		Long: `Write a campaign's jobs for a scheduler: sbatch array scripts, Kubernetes
Indexed Jobs, or plain commands. Shards that have nothing left to measure, as
far as the folder of bundles can be seen from here, are left out.

With --output the files are written into a folder and named on standard output,
and what an earlier emission left there of jobs that are through is removed;
without, the one file that there is for the hardware goes to standard output.
Where nothing is left to measure the status is 1 in both cases.`,
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
		if _, err := a.surveyCampaign(cmd.Context(), c, jobs); err != nil {
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
		jobFiles := files[:len(files)-1] // the last one is for after them
		if *output == "" {
			err = printEmitted(a.stdout, jobFiles)
		} else {
			err = a.writeEmitted(*output, files)
			if err == nil {
				err = a.removeEmitted(*output, c, campaign.Target(*target), jobs, files)
			}
		}
		if err == nil && len(jobFiles) == 0 {
			return errors.New("every shard is measured: there is no job to write; --all writes them all the same")
		}
		return err
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
func printEmitted(w io.Writer, jobs []campaign.File) error {
	if len(jobs) > 1 {
		var names []string
		for _, f := range jobs {
			names = append(names, f.Name)
		}
		return usageErrorf("output: there are %d files, %s: expected --output FOLDER, or --hardware for one of them", len(jobs), strings.Join(names, ", "))
	}
	for _, f := range jobs {
		if _, err := io.WriteString(w, f.Text); err != nil {
			return err
		}
	}
	return nil
}

// writeEmitted writes the files into a folder, and names them.
func (a *app) writeEmitted(dir string, files []campaign.File) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		if err := writeScript(path, f.Text, f.Executable); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(a.stdout, path); err != nil {
			return err
		}
	}
	return nil
}

// removeEmitted removes what was emitted before for the jobs' hardware and is
// not among the files now.
func (a *app) removeEmitted(dir string, c *campaign.Campaign, target campaign.Target, jobs []*campaign.Job, files []campaign.File) error {
	var hardware []string
	for _, j := range jobs {
		hardware = append(hardware, j.Hardware.Name)
	}
	names, err := fs.Glob(os.DirFS(dir), c.Pattern(target))
	if err != nil {
		return err
	}
	for _, name := range names {
		if slices.ContainsFunc(files, func(f campaign.File) bool { return f.Name == name }) {
			continue
		}
		path := filepath.Join(dir, name)
		if text, err := os.ReadFile(path); err != nil || !c.Holds(target, hardware, string(text)) {
			continue // as far as can be seen, nothing that was emitted
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		fmt.Fprintf(a.stderr, "removed %s, emitted before: what is left to measure is not in it\n", path)
	}
	return nil
}

func writeScript(path, text string, executable bool) error {
	err := atomicfile.Write(path, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
	if err != nil || !executable {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Chmod(path, info.Mode().Perm()|info.Mode().Perm()&0o444>>2) // who may read may run it
}
