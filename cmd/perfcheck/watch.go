package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/layerprof/layerprof/internal/chart"
	"github.com/layerprof/layerprof/internal/watch"
	"github.com/layerprof/layerprof/profile"
)

func newWatchCommand() *cobra.Command {
	var (
		once  bool
		every time.Duration
	)
	cmd := &cobra.Command{
		Use:   "watch DIR",
		Short: "Follow a running profile by its journal",
		Long: "Watch shows how far `profile run` is that works on the bundle in folder DIR, or on one below it: shots by\n" +
			"category, shots a second and the time left, the spread of samples, the anchors against their median, failures,\n" +
			"and what the device says of itself. It reads the journal and changes nothing. On a terminal it redraws, elsewhere\n" +
			"it prints a line from time to time. It ends when the run does: with status 0 if that is complete, else 5.\n" +
			"--once shows the state now and ends with status 0; with --json it is an object.",
		Example: "  perfcheck watch my-perf\n" +
			"  perfcheck watch my-perf/H200/Qwen/Qwen3-32B/bf16 --once --json",
		Args: exactArgs(1, "a bundle's folder, or one above it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if every < 0 || every == 0 && cmd.Flags().Changed("every") {
				return usagef("--every: found %s, expected a time above 0", every)
			}
			dir, err := findRun(args[0])
			if err != nil {
				return err
			}
			asJSON, _ := cmd.Flags().GetBool("json")
			out := cmd.OutOrStdout()
			s := show(func(s *watch.Status) error { return json.NewEncoder(out).Encode(s) })
			file, _ := raw(out).(*os.File)
			terminal := file != nil && term.IsTerminal(int(file.Fd()))
			switch {
			case asJSON:
			case once:
				s = func(s *watch.Status) error {
					_, err := fmt.Fprintln(out, strings.Join(s.Lines(), "\n"))
					return err
				}
			case terminal:
				s = redraw(file)
			default:
				s = func(s *watch.Status) error {
					_, err := fmt.Fprintln(out, s.Line())
					return err
				}
			}
			w := watch.New(dir)
			if once {
				status, err := w.Poll()
				if err != nil {
					return err
				}
				return s(status)
			}
			if every == 0 {
				every = 10 * time.Second
				if terminal && !asJSON {
					every = time.Second
				}
			}
			return follow(cmd, w, s, every)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "show the state now and end")
	cmd.Flags().DurationVar(&every, "every", 0, "how often to show it (default 1s on a terminal, 10s elsewhere)")
	return cmd
}

// show puts a status before people or scripts.
type show func(*watch.Status) error

// follow shows the run until it ends.
func follow(cmd *cobra.Command, w *watch.Watcher, s show, every time.Duration) error {
	// Looking is cheap, and the end is to be seen soon.
	const look = 250 * time.Millisecond
	ticker := time.NewTicker(min(look, every))
	defer ticker.Stop()
	var shown time.Time
	for {
		status, err := w.Poll()
		if err != nil {
			return err
		}
		if now := time.Now(); status.Done() || shown.IsZero() || now.Sub(shown) >= every {
			shown = now
			if err := s(status); err != nil {
				return err
			}
		}
		switch {
		case status.State == watch.Ended && status.Outcome == profile.EndComplete:
			return nil
		case status.Done():
			return errProblems
		}
		select {
		case <-cmd.Context().Done():
			return nil // asked to leave
		case <-ticker.C:
		}
	}
}

// redraw shows a page that replaces itself.
func redraw(f *os.File) show {
	above := 0
	return func(s *watch.Status) error {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil || width < 20 {
			width = 80
		}
		var text strings.Builder
		if above > 0 {
			fmt.Fprintf(&text, "\x1b[%dA", above)
		}
		lines := s.Lines()
		for _, line := range lines {
			// A line that wraps would spoil the count.
			runes := []rune(chart.Printable(line))
			fmt.Fprintf(&text, "\x1b[2K%s\n", string(runes[:min(len(runes), width-1)]))
		}
		if above > len(lines) {
			text.WriteString("\x1b[J")
		}
		above = len(lines)
		_, err = io.WriteString(f, text.String())
		return err
	}
}

// findRun is the bundle that a run works on, at or below a path: the only one
// with a journal, or the only one that is held.
func findRun(path string) (string, error) {
	var journals, held []string
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !d.IsDir():
		case d.Name() == profile.JournalDir:
			dir := filepath.Dir(name)
			journals = append(journals, dir)
			if holders, err := profile.HoldersOf(dir); err != nil {
				return err
			} else if len(holders) > 0 {
				held = append(held, dir)
			}
			return fs.SkipDir
		case strings.HasPrefix(d.Name(), ".") && name != path, tpFolder.MatchString(d.Name()):
			return fs.SkipDir
		}
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(journals) == 0:
		return "", fmt.Errorf("%s: found no such folder", path)
	case err != nil:
		return "", err
	case len(held) == 1:
		return held[0], nil
	case len(journals) == 1:
		return journals[0], nil
	case len(journals) == 0:
		return "", fmt.Errorf("%s: found no journal (%s) at or below it, expected the folder of a run", path, profile.JournalDir)
	case len(held) > 1:
		journals = held
	}
	return "", fmt.Errorf("%s: found %d runs below it, expected one of: %s", path, len(journals), strings.Join(journals, ", "))
}
