package main

import (
	"slices"

	"github.com/spf13/cobra"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "perfcheck",
		Short:         "Check, explain and compare bundles of measured layer latencies",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newReportCommand(), newWatchCommand())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().Bool("json", false, "print machine-readable JSON on standard output")
	root.AddCommand(newValidateCommand(), newInspectCommand(), newQueryCommand(), newAccuracyCommand(), newCalibrateCommand())
	root.AddCommand(newLintCommand(), newDiffCommand(), newMergeCommand(), newExportCommand(), newPlotCommand(), newPackCommand(), newUnpackCommand())
	root.AddCommand(newTPCommand(), newStepsCommand())
	for _, cmd := range root.Commands() {
		if slices.Contains(filesOnly, cmd.Name()) {
			cmd.PreRunE = refuseJSON
		}
	}
	return root
}

// filesOnly are the verbs that write a file and have nothing to print as JSON.
var filesOnly = []string{"report", "plot", "export", "pack", "unpack"}

func refuseJSON(cmd *cobra.Command, _ []string) error {
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return usagef("--json: found it with %s, which prints no JSON", cmd.Name())
	}
	return nil
}

// exactArgs is cobra's check with an error that ends in status 2.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("found %d arguments, expected %s", len(args), what)
		}
		return nil
	}
}

func minArgs(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n {
			return usagef("found %d arguments, expected %s", len(args), what)
		}
		return nil
	}
}
