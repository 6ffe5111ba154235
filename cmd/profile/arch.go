package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/internal/archtree"
	"github.com/layerprof/layerprof/perfio"
)

func newArchCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "arch",
		Short: "Show, check and draft architecture files",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(a.stderr)
			return errors.Join(cmd.Help(), usageErrorf("arch: expected show, check or draft"))
		},
	}
	cmd.AddCommand(newArchShowCommand(a), newArchCheckCommand(a), newArchDraftCommand(a))
	return cmd
}

func newArchShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show [TYPE|FILE]",
		Short: "Print an architecture's layers; without a name, what ships",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				for _, name := range perfio.Architectures() {
					fmt.Fprintln(a.stdout, name)
				}
				return nil
			}
			arch, err := loadArchitecture(args[0], nil)
			if err != nil {
				return err
			}
			return printArchitecture(a.stdout, arch)
		},
	}
}

func printArchitecture(w io.Writer, arch *perfio.Architecture) error {
	s := arch.Sequence
	for _, stage := range []struct {
		name   string
		layers []string
	}{
		{"prologue", s.Prologue}, {"pre_attn", s.PreAttn}, {"post_attn", s.PostAttn},
		{"mlp_dense", s.MLPDense}, {"mlp_moe", s.MLPMoE}, {"head", s.Head},
	} {
		if len(stage.layers) > 0 {
			fmt.Fprintf(w, "%-10s %s\n", stage.name, strings.Join(stage.layers, ", "))
		}
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "layer\tcategory\tvllm class\twithin\tstable over tp")
	for _, e := range arch.Catalog {
		stable := ""
		if e.TPStable {
			stable = "yes"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", e.Layer, e.Category, strings.Join(e.VLLM, " or "), e.Within, stable)
	}
	return table.Flush()
}

func newArchCheckCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check TYPE|FILE",
		Short: "Check an architecture file, and what it matches in a model",
		Long: `Check an architecture file. With --tree, a model's modules (one
{"name": ..., "class": ...} a line, or a JSON array of them, as probe gives them),
also say which modules each layer is, and which belong to none. Exit status 1 if
the file is wrong or a layer matches nothing.`,
		Args: cobra.ExactArgs(1),
	}
	treeFile := cmd.Flags().String("tree", "", "`file` with a model's modules")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		arch, err := loadArchitecture(args[0], nil)
		if err != nil {
			return err
		}
		if *treeFile == "" {
			_, err := fmt.Fprintf(a.stdout, "%s: %d layers\n", args[0], len(arch.Catalog))
			return err
		}
		modules, err := readTree(a.stdin, *treeFile)
		if err != nil {
			return err
		}
		return checkTree(a.stdout, arch, modules)
	}
	return cmd
}

func checkTree(w io.Writer, arch *perfio.Architecture, modules []archtree.Module) error {
	matches := archtree.Match(arch, modules)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var missing []string
	for _, e := range arch.Catalog {
		names := matches[e.Layer]
		example := "nothing"
		if len(names) > 0 {
			example = names[0]
		} else {
			missing = append(missing, e.Layer)
		}
		fmt.Fprintf(table, "%s\t%d\t%s\n", e.Layer, len(names), example)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, m := range archtree.Unmatched(arch, modules) {
		fmt.Fprintf(w, "belongs to no layer: %s (%s)\n", m.Name, m.Class)
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("no module matches %s", strings.Join(missing, ", "))
	}
	return nil
}

func newArchDraftCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "draft TREE",
		Short: "Draft an architecture file from a model's modules",
		Long: `Draft an architecture file from a model's modules: one {"name": ..., "class": ...}
a line, or a JSON array of them, as probe gives them; - is standard input. The
draft goes to standard output, what is doubtful about it to standard error.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			modules, err := readTree(a.stdin, args[0])
			if err != nil {
				return err
			}
			text, notes, err := archtree.Draft(modules)
			for _, note := range notes {
				fmt.Fprintln(a.stderr, "note:", note)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			_, err = io.WriteString(a.stdout, text)
			return err
		},
	}
}

func readTree(stdin io.Reader, file string) ([]archtree.Module, error) {
	var text []byte
	var err error
	if file == "-" {
		file = "standard input"
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	return archtree.Parse(text, file)
}
