package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/atomicfile"
	"github.com/layerprof/layerprof/internal/report"
)

// reportMemory is the heap, in bytes, from which on memory is collected eagerly.
const reportMemory = 160 << 20

func newReportCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "report BUNDLE… -o FILE.html",
		Short: "Show bundles in one HTML file",
		Long: "Report writes one HTML file that opens in any browser and needs no network: what a bundle holds and where it comes\n" +
			"from, the latency of each layer beside the roofline, attention as heat maps, measured against predicted, alpha by\n" +
			"bucket, drift over the run, and what lint finds, with links to the figures that show it. With more than one bundle,\n" +
			"at most 4, they stand side by side and are compared with the first. Folders and packed bundles, or a folder above them.",
		Example: "  perfcheck report perf/H200/Qwen/Qwen3-32B/bf16 -o qwen.html\n" +
			"  perfcheck report before.tar.zst after.tar.zst -o upgrade.html",
		Args: minArgs(1, "the bundles to show"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output == "" {
				return usagef("found no --output, expected the HTML file to write")
			}
			// Large bundles make garbage faster than the collector's default pace.
			debug.SetMemoryLimit(reportMemory)
			var sources []report.Source
			for _, path := range args {
				dirs, err := findBundles(path)
				if err != nil {
					return err
				}
				if n := len(sources) + len(dirs); n > report.MaxBundles {
					return usagef("found %d bundles, expected at most %d; those at or below %s are %s", n, report.MaxBundles, path, strings.Join(dirs, ", "))
				}
				for _, dir := range dirs {
					source, done, err := openSource(dir)
					if err != nil {
						return err
					}
					defer done()
					sources = append(sources, source)
				}
			}
			page, err := report.New(sources)
			switch {
			case err != nil:
				return err
			case output == "-":
				return page.Write(raw(cmd.OutOrStdout()))
			}
			if err := atomicfile.Write(output, page.Write); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %d bundles\n", output, len(sources))
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the HTML file to write, replaced where it exists; - is standard output")
	return cmd
}

// openSource opens a bundle's folder, which links do not leave, or a packed
// bundle. done closes it.
func openSource(path string) (source report.Source, done func(), err error) {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		fsys, err := openPacked(path)
		return report.Source{Name: path, Files: fsys}, func() {}, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return source, nil, err
	}
	// Closing what was only read tells nothing.
	return report.Source{Name: path, Files: root.FS(), Folder: path}, func() { _ = root.Close() }, nil
}
