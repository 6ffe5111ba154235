package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/layerprof/layerprof/internal/atomicfile"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// flagsFile stands in a bundle's journal: the flags that the run was given, for
// resume.
const flagsFile = "run.json"

// notSaved are flags that concern one run and not the bundle.
var notSaved = []string{"config", "help", "out", "budget", "boot-deadline", "engine-log", "log-format", "on-environment-change", "shard"}

// saveRunFlags writes the flags that were given, by file or command line. What
// resume is given anew holds for once, unless nothing was saved before.
func saveRunFlags(cmd *cobra.Command, dir string) error {
	file := filepath.Join(dir, profile.JournalDir, flagsFile)
	if _, err := os.Stat(file); err == nil && cmd.Name() == "resume" {
		return nil
	}
	set := make(map[string]string)
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		switch {
		case slices.Contains(notSaved, flag.Name):
		case flag.Name == "env" || flag.Name == "engine-arg":
			if text := publicPairs(flagValue(flag)); text != "" {
				set[flag.Name] = text
			}
		default:
			set[flag.Name] = flagValue(flag)
		}
	})
	return atomicfile.Write(file, func(w io.Writer) error {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(set)
	})
}

// publicPairs leaves out the NAME=value pairs whose names say that they are
// secrets: a bundle is given to others. They are to be given again to resume.
func publicPairs(text string) string {
	var kept []string
	for _, pair := range strings.Split(text, ",") {
		name, _, _ := strings.Cut(strings.ToUpper(pair), "=")
		secret := false
		for _, word := range []string{"TOKEN", "KEY", "SECRET", "PASSW", "CREDENTIAL", "AUTH"} {
			secret = secret || strings.Contains(name, word)
		}
		if !secret {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, ",")
}

// flagValue is a flag's value as its Set takes it.
func flagValue(flag *pflag.Flag) string {
	text := flag.Value.String()
	switch flag.Value.Type() {
	case "intSlice", "stringSlice", "stringToString":
		// These print in brackets, and are set without.
		if len(text) >= 2 && text[0] == '[' && text[len(text)-1] == ']' {
			return text[1 : len(text)-1]
		}
	}
	return text
}

func newResumeCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resume BUNDLE",
		Short: "Go on with a bundle that is partial",
		Long: `Go on with the run that wrote the bundle in folder BUNDLE: with its flags, but for those
given anew. A bundle without a journal can be resumed too, one that
LLMServingSim's profiler wrote for example: its rows count as measured, the
limits and grids are those of its meta.yaml, and --driver says what measures
the rest.`,
		Args: cobra.ExactArgs(1),
	}
	f := addRunFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir := filepath.Clean(args[0])
		given, err := savedFlags(dir)
		if err != nil {
			return err
		}
		if err := setFlags(cmd, given, filepath.Join(dir, profile.JournalDir, flagsFile)); err != nil {
			return err
		}
		if f.Driver == "" {
			return usageErrorf("driver: the bundle does not say what measured it; --driver does")
		}
		return a.measure(cmd, f, dir)
	}
	return cmd
}

// setFlags gives flags the values that stand in a file, but for those given.
func setFlags(cmd *cobra.Command, values map[string]string, file string) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		flag := cmd.Flags().Lookup(name)
		if flag == nil || flag.Changed {
			continue
		}
		if err := cmd.Flags().Set(name, values[name]); err != nil {
			return fmt.Errorf("%s: %s: %w", file, name, err)
		}
	}
	return nil
}

// savedFlags are those of the bundle's last run, else what its meta.yaml says.
func savedFlags(dir string) (map[string]string, error) {
	name := filepath.Join(dir, profile.JournalDir, flagsFile)
	text, err := os.ReadFile(name)
	if err == nil {
		var flags map[string]string
		if err := json.Unmarshal(text, &flags); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return flags, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	bundle, err := perfio.OpenBundle(dir, perfio.Only())
	if err != nil {
		return nil, err
	}
	return flagsOfMeta(bundle), nil
}

// flagsOfMeta are the flags with which a bundle would have been measured.
func flagsOfMeta(b *perfio.Bundle) map[string]string {
	m := b.Meta
	flags := map[string]string{
		"model": m.Model(), "hardware": m.Hardware(), "variant": m.Variant(), "tp": "",
		"iterations":             m.Text("measurement_iterations"),
		"max-num-batched-tokens": m.Text("engine_effective", "max_num_batched_tokens"),
		"max-num-seqs":           m.Text("engine_effective", "max_num_seqs"),
		"max-model-len":          m.Text("engine_effective", "max_model_len"),
		"block-size":             m.Text("engine_effective", "block_size"),
		"dtype":                  m.Text("engine_effective", "dtype"),
		"kv-cache-dtype":         m.Text("engine_effective", "kv_cache_dtype"),
		"attention-max-kv":       m.Text("attention_grid", "max_kv"),
		"attention-chunk-factor": m.Text("attention_grid", "chunk_factor"),
		"attention-kv-factor":    m.Text("attention_grid", "kv_factor"),
		"skew-n-factor":          m.Text("skew_profile", "factors", "n"),
		"skew-pc-factor":         m.Text("skew_profile", "factors", "pc"),
		"skew-kp-factor":         m.Text("skew_profile", "factors", "kp"),
		"skew-kvs-factor":        m.Text("skew_profile", "factors", "kvs"),
		"order":                  m.Text("order"),
		"tp-mode":                m.Text("tp_mode"),
		"blocks":                 m.Text("blocks"),
	}
	for i, tp := range b.TPs {
		if i > 0 {
			flags["tp"] += ","
		}
		flags["tp"] += fmt.Sprint(tp.Degree)
	}
	if plan := m.Text("plan"); plan == string(profile.FullPlan) || plan == string(profile.LeanPlan) {
		flags["plan"] = plan // and not a file's or another bundle's
	}
	if m.Text("order") == "" {
		// LLMServingSim's profiler, which does not say so, puts the prefill first.
		flags["order"] = string(profile.PrefillFirst)
	}
	maps.DeleteFunc(flags, func(_, value string) bool { return value == "" })
	return flags
}
