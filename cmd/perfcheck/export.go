package main

import (
	"bufio"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/atomicfile"
	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
)

func newExportCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "export PATH…",
		Short: "Write every measurement of bundles as one tidy CSV",
		Long: "Export writes one CSV, a line for each measured time of the bundles at or below the paths, with what was\n" +
			"measured in columns of its own; a column that a table does not have is empty. A row of skew.csv gives three\n" +
			"lines (case mean, max, skew). time_us is as in the bundle; runs is how many runs it is the sum of.",
		Args: minArgs(1, "the paths of bundles"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var dirs []string
			for _, path := range args {
				found, err := findBundles(path)
				if err != nil {
					return err
				}
				dirs = append(dirs, found...)
			}
			if output == "" || output == "-" {
				return export(cmd.OutOrStdout(), dirs)
			}
			return atomicfile.Write(output, func(w io.Writer) error { return export(w, dirs) })
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the file to write; standard output where there is none")
	return cmd
}

func export(w io.Writer, dirs []string) error {
	out := bufio.NewWriter(w)
	if err := tidy.WriteHeader(out); err != nil {
		return err
	}
	for _, dir := range dirs {
		b, err := readBundle(dir, perfio.Without(perfio.SkewFitFile, perfio.BatchesFile))
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		if err := tidy.WriteCSV(out, b); err != nil {
			return err
		}
	}
	return out.Flush()
}
