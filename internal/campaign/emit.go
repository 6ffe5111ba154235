package campaign

import (
	"fmt"
	"slices"
	"strings"
)

// Target is what jobs are emitted for.
type Target string

// The targets.
const (
	SlurmTarget      Target = "slurm"
	KubernetesTarget Target = "kubernetes"
	ShellTarget      Target = "shell"
)

// Targets lists the targets.
var Targets = []Target{SlurmTarget, KubernetesTarget, ShellTarget}

// File is one emitted file.
type File struct {
	Name       string
	Text       string
	Executable bool
}

// Emit writes the files for the jobs' needed shards, and one with the commands
// that put each bundle's shards together. Jobs that need nothing are left out
// of the former.
func (c *Campaign) Emit(target Target, jobs []*Job) ([]File, error) {
	needed := slices.DeleteFunc(slices.Clone(jobs), func(j *Job) bool { return len(j.Needed) == 0 })
	var files []File
	var err error
	switch target {
	case SlurmTarget:
		files = c.slurm(needed)
	case KubernetesTarget:
		files, err = c.kubernetes(needed)
	case ShellTarget:
		files = c.shell(needed)
	default:
		return nil, fmt.Errorf("target: found %q, expected one of %v", target, Targets)
	}
	if err != nil {
		return nil, err
	}
	return append(files, c.merges(jobs)), nil
}

// byHardware are the jobs of each kind of hardware that has any.
func (c *Campaign) byHardware(jobs []*Job) [][]*Job {
	var groups [][]*Job
	for i := range c.Hardware {
		var group []*Job
		for _, j := range jobs {
			if j.Hardware == &c.Hardware[i] {
				group = append(group, j)
			}
		}
		if len(group) > 0 {
			groups = append(groups, group)
		}
	}
	return groups
}

// written is the line by which what was emitted is known again.
func (c *Campaign) written(what string) string {
	return fmt.Sprintf("# Campaign %s: %s. Written by profile campaign emit.\n", c.Name, what)
}

// What the files of each target say that they hold.
const (
	arrayOf     = "%d shards on %s"
	manifestOf  = "%d bundles on %s"
	commandsFor = "a command a shard, in any order and on any machine"
)

// Pattern matches the names of the files with jobs that Emit writes.
func (c *Campaign) Pattern(target Target) string {
	return globQuote.Replace(c.Name) + "*" + map[Target]string{SlurmTarget: ".sbatch", KubernetesTarget: ".yaml", ShellTarget: ".sh"}[target]
}

var globQuote = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// Holds says whether a file's text is jobs that Emit wrote for the target, on
// one of the kinds of hardware, or on no other where a file has them all.
func (c *Campaign) Holds(target Target, hardware []string, text string) bool {
	what := map[Target]string{SlurmTarget: arrayOf, KubernetesTarget: manifestOf}[target]
	for line := range strings.Lines(text) {
		count := 0
		if what == "" && line == c.written(commandsFor) {
			return !slices.ContainsFunc(c.Jobs(), func(j *Job) bool { return !slices.Contains(hardware, j.Hardware.Name) })
		}
		if rest, ok := strings.CutPrefix(line, "# Campaign "+c.Name+": "); ok && what != "" {
			_, _ = fmt.Sscan(rest, &count) // the line is compared as a whole
			if slices.ContainsFunc(hardware, func(name string) bool { return line == c.written(fmt.Sprintf(what, count, name)) }) {
				return true
			}
		}
	}
	return false
}

// shell lists the plain commands, for whatever runs commands.
func (c *Campaign) shell(jobs []*Job) []File {
	if len(jobs) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString("#!/bin/sh\n" + c.written(commandsFor))
	b.WriteString("# Status 0: done. 3: ended early, to be started again. Else it says what is wrong.\n")
	for _, j := range jobs {
		for _, i := range j.Needed {
			b.WriteString(quoted(append([]string{c.Program}, j.Args(fmt.Sprint(i))...)) + "\n")
		}
	}
	return []File{{Name: c.Name + ".sh", Text: b.String(), Executable: true}}
}

// merges lists the commands that make the bundles' tables.
func (c *Campaign) merges(jobs []*Job) File {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n" + c.written("the tables of each bundle, once its shards are through"))
	b.WriteString("status=0\n")
	for _, j := range jobs {
		if j.Dir != "" {
			b.WriteString(quoted([]string{"perfcheck", "merge", j.Dir}) + " || status=$?\n")
		}
	}
	b.WriteString("exit $status\n")
	return File{Name: c.Name + "-merge.sh", Text: b.String(), Executable: true}
}

// quoted writes a command line for a POSIX shell.
func quoted(args []string) string {
	out := make([]string, len(args))
	for i, arg := range args {
		out[i] = quote(arg)
	}
	return strings.Join(out, " ")
}

func quote(arg string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:,=+@%", r)
	}
	if arg != "" && !strings.ContainsFunc(arg, func(r rune) bool { return !plain(r) }) {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}
