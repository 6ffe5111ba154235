package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/lint"
	"github.com/layerprof/layerprof/perfio"
)

// lintLine is a finding as `lint --json` prints it, an object a line.
type lintLine struct {
	Bundle string `json:"bundle"`
	lint.Finding
}

func newLintCommand() *cobra.Command {
	var list bool
	cmd := &cobra.Command{
		Use:   "lint PATH…",
		Short: "Find what is wrong inside well-formed bundles",
		Long: "Lint looks for numbers that no kernel has, curves that contradict themselves and tables that do not belong\n" +
			"together, in the bundles at or below the paths. Each finding has a severity (an error makes lookups wrong,\n" +
			"a warning may), its rows, a reason, and how to measure again. Exit status 5 where there is one.\n" +
			"A row is named by its line in the file, of which empty ones do not count.\n" +
			"--rules lists what is looked for. --json prints an object a line; its id and plot are ids in `perfcheck report`.",
		Args: func(cmd *cobra.Command, args []string) error {
			if list {
				return exactArgs(0, "no path beside --rules")(cmd, args)
			}
			return minArgs(1, "the paths of bundles")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, _ := cmd.Flags().GetBool("json")
			if list {
				return listRules(cmd.OutOrStdout(), asJSON)
			}
			write := printFinding
			if asJSON {
				write = func(w io.Writer, bundle string, f lint.Finding) error {
					return json.NewEncoder(w).Encode(lintLine{bundle, f})
				}
			}
			return lintPaths(cmd, args, write)
		},
	}
	cmd.Flags().BoolVar(&list, "rules", false, "list the rules")
	return cmd
}

func lintPaths(cmd *cobra.Command, paths []string, write func(io.Writer, string, lint.Finding) error) error {
	out := cmd.OutOrStdout()
	found := 0
	var all []*perfio.Bundle
	emit := func(bundle string, findings []lint.Finding) error {
		for _, f := range findings {
			found++
			if err := write(out, bundle, f); err != nil {
				return err
			}
		}
		return nil
	}
	for _, path := range paths {
		dirs, err := findBundles(path)
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			b, err := readBundle(dir, perfio.Without(perfio.BatchesFile))
			if err != nil {
				return err
			}
			if err := emit(dir, lint.Check(b)); err != nil {
				return err
			}
			// Only meta.yaml is looked at again.
			all = append(all, &perfio.Bundle{Dir: b.Dir, Meta: b.Meta})
		}
	}
	for _, b := range all {
		if err := emit(b.Dir, lint.Together(b, all)); err != nil {
			return err
		}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%d bundles, %d findings\n", len(all), found)
	if found > 0 {
		return errProblems
	}
	return nil
}

func printFinding(w io.Writer, _ string, f lint.Finding) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s: %s: %s\n", f.Places[0], f.Severity, f.Rule, f.Reason)
	if len(f.Places) > 1 {
		text.WriteString("    also:")
		for _, p := range f.Places[1:] {
			fmt.Fprintf(&text, " %s", p)
		}
		if more := f.Rows - len(f.Places); more > 0 {
			fmt.Fprintf(&text, " and %d more", more)
		}
		text.WriteString("\n")
	}
	if f.Again != "" {
		fmt.Fprintf(&text, "    again: %s\n", f.Again)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func listRules(w io.Writer, asJSON bool) error {
	encoder := json.NewEncoder(w)
	for _, r := range append(lint.Rules(), lint.Synthetic) {
		var err error
		if asJSON {
			err = encoder.Encode(struct {
				Rule     string        `json:"rule"`
				Severity lint.Severity `json:"severity"`
				About    string        `json:"about"`
			}{r.Name, r.Severity, r.About})
		} else {
			_, err = fmt.Fprintf(w, "%-18s %-8s %s\n", r.Name, r.Severity, r.About)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
