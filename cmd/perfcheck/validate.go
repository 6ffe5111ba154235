package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/perfio"
)

func newValidateCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "validate PATH…",
		Short: "Name every problem of the bundles at or below the paths",
		Long: "Validate reads every file of the bundles at or below the paths (folders, or packed bundles) and prints\n" +
			"each problem as file:line:column: field: found, expected. Exit status 5 where there is one.\n" +
			"Warnings are problems that do not keep a bundle from being read; they do not count.",
		Args: minArgs(1, "the paths of bundles"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON && !cmd.Flags().Changed("format") {
				format = "json"
			}
			write, ok := problemFormats[format]
			if !ok {
				return usagef("--format: found %q, expected text, json or github", format)
			}
			bundles, problems := 0, 0
			for _, path := range args {
				dirs, err := findBundles(path)
				if err != nil {
					return err
				}
				for _, dir := range dirs {
					bundles++
					n, err := validateOne(cmd.OutOrStdout(), dir, write)
					if err != nil {
						return err
					}
					problems += n
				}
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d bundles, %d problems\n", bundles, problems)
			if problems > 0 {
				return errProblems
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text, json (an object a line) or github (annotations)")
	return cmd
}

// validateOne prints one bundle's problems and counts those that are errors.
func validateOne(out io.Writer, dir string, write func(io.Writer, *perfio.ParseError) error) (int, error) {
	problems := 0
	var writeErr error
	yield := func(p *perfio.ParseError) bool {
		if !p.Warning {
			problems++
		}
		writeErr = write(out, p)
		return writeErr == nil
	}
	if isPacked(dir) {
		fsys, err := openPacked(dir)
		if err != nil {
			return 0, err
		}
		perfio.Validate(fsys, ".", func(p *perfio.ParseError) bool {
			inside := *p
			inside.File = dir + ":" + path.Clean(p.File)
			return yield(&inside)
		})
		return problems, writeErr
	}
	if err := perfio.ValidateDir(dir, yield); err != nil {
		return problems, err
	}
	return problems, writeErr
}

func isPacked(path string) bool { return strings.HasSuffix(filepath.Base(path), ".tar.zst") }

var problemFormats = map[string]func(io.Writer, *perfio.ParseError) error{
	"text": func(w io.Writer, p *perfio.ParseError) error {
		text := p.Error()
		if p.Warning {
			text = strings.Replace(text, ": ", ": warning: ", 1)
		}
		_, err := fmt.Fprintln(w, text)
		return err
	},
	"json": func(w io.Writer, p *perfio.ParseError) error {
		return json.NewEncoder(w).Encode(struct {
			File     string `json:"file"`
			Line     int    `json:"line"`
			Column   int    `json:"column"`
			Field    string `json:"field"`
			Message  string `json:"message"`
			Severity string `json:"severity"`
		}{p.File, p.Line, p.Column, p.Field, p.Message(), severity(p)})
	},
	"github": func(w io.Writer, p *perfio.ParseError) error {
		text := p.Message()
		if p.Field != "" {
			text = p.Field + ": " + text
		}
		at := "file=" + githubEscape(p.File, true)
		if p.Line > 0 { // 0: the file as a whole, as is a column of 0 the line
			at += fmt.Sprintf(",line=%d", p.Line)
		}
		if p.Column > 0 {
			at += fmt.Sprintf(",col=%d", p.Column)
		}
		_, err := fmt.Fprintf(w, "::%s %s::%s\n", severity(p), at, githubEscape(text, false))
		return err
	},
}

func severity(p *perfio.ParseError) string {
	if p.Warning {
		return "warning"
	}
	return "error"
}

// githubEscape is the escaping of workflow commands: of their message, and of
// their properties, which also end at a comma or colon.
func githubEscape(s string, property bool) string {
	s = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
	if property {
		s = strings.NewReplacer(":", "%3A", ",", "%2C").Replace(s)
	}
	return s
}
