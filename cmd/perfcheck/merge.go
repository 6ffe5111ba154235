package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/bundlemerge"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

func newMergeCommand() *cobra.Command {
	var (
		output, floor, limit string
		keepFirst, keepLast  bool
		partial              bool
		without              []string
	)
	cmd := &cobra.Command{
		Use:   "merge PART PART… -o FOLDER, merge BUNDLE",
		Short: "Put parts of one bundle, or the shards of one plan, together",
		Long: "Merge writes a bundle with the tables, degrees and rows of all parts into a folder that must not exist. Parts\n" +
			"that were measured differently (other limits, versions, devices) are refused. Rows that several parts hold\n" +
			"must agree within the noise: where they do not, they are listed, nothing is written and the exit status is 5,\n" +
			"unless --keep-first says that the first part's rows count or --keep-last that the last one's do. Files that are no table of a bundle stay\n" +
			"behind, which is said.\n\n" +
			"What profile run --shard measured is put together from the shards' journals: those of BUNDLE in their place,\n" +
			"or those of several folders into --output. For each shard merge says how long its anchors took by those of the\n" +
			"others. Where one differs by more than --max-shard-ratio, or shots are missing, nothing is written and the exit\n" +
			"status is 5; --without leaves a shard out, --partial writes what there is.",
		Args: minArgs(1, "a bundle with shards, or two or more parts"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && !profile.HasShards(args[0]) {
				if _, err := os.Stat(args[0]); err != nil {
					return err
				}
				return usagef("%s: found no shards, expected some, or two or more parts", args[0])
			}
			if output == "" && len(args) > 1 {
				return usagef("found no --output, expected the folder to write")
			}
			if keepFirst && keepLast {
				return usagef("found --keep-first and --keep-last, expected one of them at most")
			}
			noise, err := parseShare("--floor", floor)
			if err != nil {
				return err
			}
			ratio, err := parseShare("--max-shard-ratio", limit)
			if err != nil {
				return err
			}
			if output != "" {
				if _, err := os.Lstat(output); err == nil {
					return fmt.Errorf("%s: found something of that name, expected nothing", output)
				}
			}
			if !slices.ContainsFunc(args, func(path string) bool { return !profile.HasShards(path) }) {
				done, err := mergeShards(cmd, args, output, profile.MergeOptions{Limit: ratio, Partial: partial, Without: without})
				if done || err != nil {
					return err
				}
			}
			return mergeParts(cmd, args, output, noise, keepFirst, keepLast)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the folder to write; of shards, that of the bundle itself where not given")
	cmd.Flags().StringVar(&floor, "floor", "1%", "the difference of overlapping rows that is always noise")
	cmd.Flags().BoolVar(&keepFirst, "keep-first", false, "where parts contradict each other, take the first one's rows")
	cmd.Flags().BoolVar(&keepLast, "keep-last", false, "where parts hold the same row, take the last one's, as of rows that were measured again")
	cmd.Flags().StringVar(&limit, "max-shard-ratio", "5%", "how far a shard's anchors may be from the others'")
	cmd.Flags().StringArrayVar(&without, "without", nil, "a shard's `file` to leave out, as merge lists it; repeatable")
	cmd.Flags().BoolVar(&partial, "partial", false, "write tables of shards that are not through")
	return cmd
}

func mergeParts(cmd *cobra.Command, args []string, output string, noise float64, keepFirst, keepLast bool) error {
	var parts []*perfio.Bundle
	for _, path := range args {
		b, err := readBundle(path)
		if err != nil {
			return err
		}
		parts = append(parts, b)
	}
	merged, err := bundlemerge.Merge(parts, noise, keepLast)
	if err != nil {
		return err
	}
	asJSON, _ := cmd.Flags().GetBool("json")
	for _, c := range merged.Conflicts {
		if asJSON {
			err = json.NewEncoder(cmd.OutOrStdout()).Encode(c)
		} else {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s/tp%d/%s.csv:%d: %s: %s: found %.4f times what %s holds\n", c.Of, c.TP, c.Table, c.Line, c.Layer, c.What, c.Ratio, c.Beside)
		}
		if err != nil {
			return err
		}
	}
	if len(merged.Conflicts) > 0 && !keepFirst && !keepLast {
		fmt.Fprintf(cmd.ErrOrStderr(), "perfcheck: %d conflicts, nothing written\n", len(merged.Conflicts))
		return errProblems
	}
	for _, note := range merged.Notes {
		fmt.Fprintf(cmd.ErrOrStderr(), "perfcheck: %s\n", note)
	}
	for _, path := range args {
		names, err := otherFiles(path)
		if err != nil {
			return err
		}
		for _, name := range names {
			fmt.Fprintf(cmd.ErrOrStderr(), "perfcheck: left behind: %s\n", name)
		}
	}
	if err := perfio.WriteBundle(output, merged.Bundle); err != nil {
		return errors.Join(err, os.RemoveAll(output)) // which this very run has made
	}
	return nil
}

// otherFiles are a bundle's files that are no table of it, those of a run's
// journal aside.
func otherFiles(path string) ([]string, error) {
	source, done, err := openSource(path)
	if err != nil {
		return nil, err
	}
	defer done()
	known := []string{perfio.MetaFile, perfio.BatchesFile}
	for _, table := range perfio.Schema() {
		known = append(known, table.File)
	}
	var names []string
	err = fs.WalkDir(source.Files, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(d.Name(), ".") && name != ".":
			if d.IsDir() {
				return fs.SkipDir
			}
		case !d.IsDir() && !slices.Contains(known, d.Name()):
			names = append(names, path+"/"+name)
		}
		return nil
	})
	return names, err
}
