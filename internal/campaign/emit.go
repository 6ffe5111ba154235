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

func (c *Campaign) written(what string) string {
	return fmt.Sprintf("# Campaign %s: %s. Written by profile campaign emit.\n", c.Name, what)
}

// shell lists the plain commands, for whatever runs commands.
func (c *Campaign) shell(jobs []*Job) []File {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n" + c.written("a command a shard, in any order and on any machine"))
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
