// Package doctest runs the commands of the user pages, so that no page tells
// anybody to type what does not work.
//
// A page is Markdown. A fence marked `console` is a session: lines that begin
// with `$ ` are commands (a trailing backslash continues one), the lines below
// each are what it prints on standard output and standard error. In those,
// `...` stands for any text within a line and, alone, for any number of lines;
// a command with nothing below it may print what it likes. A command is to
// exit with status 0, or with N where its line ends in `# exit N`. A fence
// whose info string has file=NAME, as in "yaml file=profile.yaml", is a file:
// it is written before the commands that follow it run. A page's commands run
// in order, by sh, in one folder that begins empty but for what Options.Setup
// puts there.
package doctest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Step is a command to run or a file to write.
type Step struct {
	Line    int      // of the page, from 1
	Command string   // "" for a file
	Status  int      // the exit status that the page says
	Output  []string // what the page shows below the command
	File    string   // the name of a file, relative to the page's folder
	Text    string   // its contents
}

var exitMark = regexp.MustCompile(`\s+# exit (\d+)$`)

// Parse lists a page's steps.
func Parse(page string) ([]Step, error) {
	var steps []Step
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		info, ok := strings.CutPrefix(lines[i], "```")
		if !ok {
			continue
		}
		open := i + 1
		for i++; i < len(lines) && lines[i] != "```"; i++ {
		}
		if i == len(lines) {
			return nil, fmt.Errorf("line %d: the fence is not closed", open)
		}
		body := lines[open:i]
		fields := strings.Fields(info)
		for _, field := range fields {
			if name, ok := strings.CutPrefix(field, "file="); ok {
				steps = append(steps, Step{Line: open, File: name, Text: strings.Join(body, "\n") + "\n"})
			}
		}
		if len(fields) > 0 && fields[0] == "console" {
			session, err := parseSession(body, open+1)
			if err != nil {
				return nil, err
			}
			steps = append(steps, session...)
		}
	}
	return steps, nil
}

func parseSession(lines []string, first int) ([]Step, error) {
	var steps []Step
	for i := 0; i < len(lines); i++ {
		command, ok := strings.CutPrefix(lines[i], "$ ")
		if !ok {
			if len(steps) == 0 {
				return nil, fmt.Errorf("line %d: found %q, expected a command after `$ `", first+i, lines[i])
			}
			last := &steps[len(steps)-1]
			last.Output = append(last.Output, lines[i])
			continue
		}
		step := Step{Line: first + i}
		for strings.HasSuffix(command, "\\") && i+1 < len(lines) {
			i++
			command = strings.TrimSuffix(command, "\\") + strings.TrimSpace(lines[i])
		}
		if mark := exitMark.FindStringSubmatch(command); mark != nil {
			step.Status, _ = strconv.Atoi(mark[1]) // digits, by the pattern
			command = strings.TrimSuffix(command, mark[0])
		}
		step.Command = command
		steps = append(steps, step)
	}
	return steps, nil
}

// Options say what a page's commands find.
type Options struct {
	// Binaries are built and put in front of PATH: name to package path, e.g.
	// "profile": "./cmd/profile", relative to the repository.
	Binaries map[string]string
	// Setup prepares the folder in which the page's commands run.
	Setup func(t *testing.T, dir string)
	// Skip returns a reason not to run a command, or "".
	Skip func(command string) string
	// Env is added to the environment.
	Env []string
}

// Run runs a page, named by its path relative to the repository's root.
func Run(t *testing.T, page string, options Options) {
	t.Helper()
	root, err := repositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	steps, err := Parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", page, err)
	}
	if len(steps) == 0 {
		t.Fatalf("%s: no command to run; sessions are fences marked console", page)
	}
	bin := t.TempDir()
	for name, pkg := range options.Binaries {
		build := exec.Command("go", "build", "-o", filepath.Join(bin, name), pkg)
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build %s: %v\n%s", pkg, err, out)
		}
	}
	dir := t.TempDir()
	if options.Setup != nil {
		options.Setup(t, dir)
	}
	env := append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "HOME="+dir)
	env = append(env, options.Env...)
	for _, step := range steps {
		if step.Command == "" {
			if err := writeFile(dir, step); err != nil {
				t.Fatalf("%s:%d: %v", page, step.Line, err)
			}
			continue
		}
		if options.Skip != nil {
			if reason := options.Skip(step.Command); reason != "" {
				t.Logf("%s:%d: not run: %s: %s", page, step.Line, reason, step.Command)
				continue
			}
		}
		output, status, err := runStep(t.Context(), dir, env, step.Command)
		switch {
		case err != nil:
			t.Fatalf("%s:%d: %s: %v", page, step.Line, step.Command, err)
		case status != step.Status:
			t.Fatalf("%s:%d: %s: exit status %d, expected %d\n%s", page, step.Line, step.Command, status, step.Status, output)
		case !Matches(step.Output, output):
			t.Errorf("%s:%d: %s prints\n%s\nwhere the page shows\n%s", page, step.Line, step.Command, output, strings.Join(step.Output, "\n"))
		}
	}
}

func writeFile(dir string, step Step) error {
	if !filepath.IsLocal(step.File) {
		return fmt.Errorf("file=%s leads out of the page's folder", step.File)
	}
	path := filepath.Join(dir, step.File)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(step.Text), 0o644)
}

func runStep(ctx context.Context, dir string, env []string, command string) (string, int, error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, env, 10*time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return output.String(), exit.ExitCode(), nil
	}
	return output.String(), 0, err
}

// Matches says whether a command's output is what a page shows of it. Spaces at
// the ends of lines and empty lines at the end do not count.
func Matches(shown []string, output string) bool {
	shown = trimmed(shown)
	if len(shown) == 0 {
		return true
	}
	var pattern strings.Builder
	pattern.WriteString(`\A`)
	for _, line := range shown {
		if line == "..." {
			pattern.WriteString(`(?:[^\n]*\n)*?`)
			continue
		}
		parts := strings.Split(line, "...")
		for j := range parts {
			parts[j] = regexp.QuoteMeta(parts[j])
		}
		pattern.WriteString(strings.Join(parts, `[^\n]*?`) + `\n`)
	}
	pattern.WriteString(`\z`)
	lines := trimmed(strings.Split(output, "\n"))
	return regexp.MustCompile(pattern.String()).MatchString(strings.Join(lines, "\n") + "\n")
}

func trimmed(lines []string) []string {
	out := make([]string, 0, len(lines))
	for _, line := range lines {
		out = append(out, strings.TrimRight(line, " \t\r"))
	}
	for len(out) > 0 && out[len(out)-1] == "" {
		out = out[:len(out)-1]
	}
	return out
}

// repositoryRoot is the folder of go.mod, at or above the working folder.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("no go.mod here or above")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}
