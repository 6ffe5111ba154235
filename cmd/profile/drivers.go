package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/profile"
)

// driverInfo is one line of profile drivers.
type driverInfo struct {
	Name   string         `json:"name"`
	Usage  string         `json:"usage"`
	Origin profile.Origin `json:"origin"`
	About  string         `json:"about"`
}

// driverInfos lists what openDriver knows. What an exec worker's numbers are,
// it says itself.
func driverInfos() []driverInfo {
	return []driverInfo{
		{"roofline", "roofline", profile.Synthetic, "computes from a hardware specification and the model's config"},
		{"replay", "replay:BUNDLE[,key=value...]", profile.Replayed, "answers from a measured bundle"},
		{"vllm", "vllm", profile.Measured, "measures vLLM under --python by the embedded worker"},
		{"exec", "exec:CMD", profile.Measured, "measures whatever engine the program CMD drives; it speaks the worker protocol"},
	}
}

func newDriversCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drivers",
		Short: "List what can measure",
		Args:  cobra.NoArgs,
	}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(*cobra.Command, []string) error {
		infos := driverInfos()
		if *asJSON {
			return json.NewEncoder(a.stdout).Encode(map[string]any{"drivers": infos})
		}
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		for _, d := range infos {
			fmt.Fprintf(w, "%s\t%s\t%s\n", d.Usage, d.Origin, d.About)
		}
		return w.Flush()
	}
	return cmd
}
