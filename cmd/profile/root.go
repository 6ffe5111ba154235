package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// app is what the commands share.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer

	configPath string
	// started: the command line is understood, what fails now is the command.
	started bool
}

// run is the program without its process: it returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := newRootCommand(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit *exitError
	if err != nil && !(errors.As(err, &exit) && exit.Err == nil) {
		fmt.Fprintln(stderr, "profile:", err)
	}
	return exitStatus(err, a.started)
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "profile",
		Short:         "Plan, measure and fit layerwise latency profiles",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.started = false
			cmd.SetOut(a.stderr)
			return errors.Join(cmd.Help(), usageErrorf("no command given"))
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := applyConfig(cmd, a.configPath); err != nil {
				return err
			}
			a.started = true
			return nil
		},
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().StringVar(&a.configPath, "config", "", "YAML `file` with values for flags; flags win")
	root.AddCommand(
		newDriversCommand(a),
		newProbeCommand(a),
		newPlanCommand(a),
		newRunCommand(a),
		newResumeCommand(a),
		newFitCommand(a),
		newServeCheckCommand(a),
		newArchCommand(a),
		newCampaignCommand(a),
	)
	return root
}
