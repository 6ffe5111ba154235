package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/bundlemerge"
	"github.com/layerprof/layerprof/perfio"
)

func newMergeCommand() *cobra.Command {
	var (
		output, floor string
		keepFirst     bool
	)
	cmd := &cobra.Command{
		Use:   "merge PART PART… -o FOLDER",
		Short: "Put complementary parts of one bundle together",
		Long: "Merge writes a bundle with the tables, degrees and rows of all parts into a folder that must not exist. Parts\n" +
			"that were measured differently (other limits, versions, devices) are refused. Rows that several parts hold\n" +
			"must agree within the noise: where they do not, they are listed, nothing is written and the exit status is 5,\n" +
			"unless --keep-first says that the first part's rows count. Files that are no table of a bundle stay behind.",
		Args: minArgs(2, "two or more parts"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output == "" {
				return usagef("found no --output, expected the folder to write")
			}
			noise, err := parseShare("--floor", floor)
			if err != nil {
				return err
			}
			if _, err := os.Lstat(output); err == nil {
				return fmt.Errorf("%s: found something of that name, expected nothing", output)
			}
			var parts []*perfio.Bundle
			for _, path := range args {
				b, err := readBundle(path)
				if err != nil {
					return err
				}
				parts = append(parts, b)
			}
			merged, err := bundlemerge.Merge(parts, noise)
			if err != nil {
				return err
			}
			asJSON, _ := cmd.Flags().GetBool("json")
			for _, c := range merged.Conflicts {
				if asJSON {
					err = json.NewEncoder(cmd.OutOrStdout()).Encode(c)
				} else {
					_, err = fmt.Fprintf(plain{cmd.OutOrStdout()}, "%s/tp%d/%s.csv:%d: %s: %s: found %.4f times what %s holds\n", c.Of, c.TP, c.Table, c.Line, c.Layer, c.What, c.Ratio, c.Beside)
				}
				if err != nil {
					return err
				}
			}
			if len(merged.Conflicts) > 0 && !keepFirst {
				fmt.Fprintf(cmd.ErrOrStderr(), "perfcheck: %d conflicts, nothing written\n", len(merged.Conflicts))
				return errProblems
			}
			for _, note := range merged.Notes {
				fmt.Fprintf(cmd.ErrOrStderr(), "perfcheck: %s\n", note)
			}
			return perfio.WriteBundle(output, merged.Bundle)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the folder to write")
	cmd.Flags().StringVar(&floor, "floor", "1%", "the difference of overlapping rows that is always noise")
	cmd.Flags().BoolVar(&keepFirst, "keep-first", false, "where parts contradict each other, take the first one's rows")
	return cmd
}
