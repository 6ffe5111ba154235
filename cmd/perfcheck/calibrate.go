package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/traceloader"
)

func newCalibrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "calibrate BUNDLE",
		Short: "Fit the accurate rules to a bundle and store the fit beside it",
		Long: "Calibrate writes calibration.json into the bundle's folder: the models chosen and their parameters, their\n" +
			"leave-one-out errors, and a hash of what they were fitted to. Opening the bundle by the accurate\n" +
			"rules is then faster; a calibration of other rows is not used.",
		Args: exactArgs(1, "one bundle's folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			calibration, err := traceloader.Calibrate(args[0], traceloader.Options{Rules: traceloader.Accurate})
			if err != nil {
				return err
			}
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(calibration)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), filepath.Join(args[0], traceloader.CalibrationFile))
			return err
		},
	}
}
