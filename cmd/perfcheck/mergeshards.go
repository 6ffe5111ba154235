package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// mergeShards puts shards together, in the bundle's folder where output is "".
// done is false for bundles of different plans that have tables of their own.
func mergeShards(cmd *cobra.Command, args []string, output string, options profile.MergeOptions) (done bool, err error) {
	options.Dir = args[0]
	if output != "" {
		options.Dir = output
		err := profile.GatherShards(output, args)
		var plans *profile.PlanDifferenceError
		if errors.As(err, &plans) && !slices.ContainsFunc(args, func(path string) bool { return !hasTables(path) }) {
			return false, os.RemoveAll(output)
		}
		if err != nil {
			return false, errors.Join(err, os.RemoveAll(output))
		}
	}
	options.Observe = func(e profile.Event) {
		if e.Kind == profile.EventWarning {
			fmt.Fprintf(cmd.ErrOrStderr(), "perfcheck: %s\n", e.Message)
		}
	}
	report, err := profile.MergeShards(options)
	if err != nil && output != "" {
		err = errors.Join(err, os.RemoveAll(output)) // which this very run has made
	}
	return true, concludeMerge(cmd, report, err)
}

func hasTables(path string) bool {
	_, err := os.Stat(filepath.Join(path, perfio.MetaFile))
	return err == nil
}

// concludeMerge says what was found.
func concludeMerge(cmd *cobra.Command, report *profile.MergeReport, err error) error {
	if printErr := printShards(cmd, report); printErr != nil {
		return errors.Join(err, printErr)
	}
	var (
		missing     *profile.MissingShotsError
		differ      *profile.ShardsDifferError
		environment *profile.EnvironmentError
	)
	if errors.As(err, &missing) || errors.As(err, &differ) || errors.As(err, &environment) {
		fmt.Fprintf(cmd.ErrOrStderr(), "perfcheck: %v\nperfcheck: nothing written\n", err)
		return errProblems
	}
	if err != nil {
		return err
	}
	if report.Missing > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "perfcheck: %d of %d shots are not measured; the tables lack them\n", report.Missing, report.Shots)
	}
	return nil
}

func printShards(cmd *cobra.Command, report *profile.MergeReport) error {
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		for _, s := range report.Shards {
			if err := encoder.Encode(s); err != nil {
				return err
			}
		}
		return nil
	}
	if len(report.Shards) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "shard\tshots\tanchors\tratio\tplace")
	for _, s := range report.Shards {
		if s.Shots == 0 && s.Anchors == 0 && s.File == profile.DefaultShard {
			continue // no shard's: the journal of whole steps, say
		}
		ratio := "?"
		if s.Ratio > 0 {
			ratio = fmt.Sprintf("%.4f", s.Ratio)
		}
		if s.Beyond {
			ratio += " !"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", s.File, s.Shots, s.Anchors, ratio, s.Place)
	}
	return w.Flush()
}
