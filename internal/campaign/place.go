package campaign

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/internal/yamldoc"
	"github.com/layerprof/layerprof/perfio"
)

// place is the line and column of a value in the file.
type place struct{ line, column int }

// note keeps where each value below n stands, by its path.
func (c *Campaign) note(path string, n *yaml.Node) {
	if c.places == nil {
		c.places = make(map[string]place)
	}
	c.places[path] = place{n.Line, n.Column}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			c.note(yamldoc.Join(path, n.Content[i].Value), n.Content[i+1])
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			c.note(fmt.Sprintf("%s[%d]", path, i), item)
		}
	}
}

// Problem says what is wrong with the value at a path, as "models[1].id"; where
// the file has none, it is that of what the path is within.
func (c *Campaign) Problem(path string, err error) error {
	at, ok := c.places[path]
	for within := path; !ok && within != ""; {
		within = within[:max(strings.LastIndexAny(within, ".["), 0)]
		at, ok = c.places[within]
	}
	return &perfio.ParseError{File: c.File, Line: at.line, Column: at.column, Field: path, Err: err}
}

// Problem says what is wrong with a job. Of each error that begins with the name
// of a flag of profile run, as those of its flags do, the place in the file is
// said; ok: there was such a one, or one that has its place already.
func (j *Job) Problem(err error) (said error, ok bool) {
	if many, joined := err.(interface{ Unwrap() []error }); joined {
		var list []error
		for _, one := range many.Unwrap() {
			one, placed := j.Problem(one)
			list, ok = append(list, one), ok || placed
		}
		return errors.Join(list...), ok
	}
	var at *perfio.ParseError
	if errors.As(err, &at) && at.File == j.campaign.File {
		return err, true
	}
	if flag, text, found := strings.Cut(err.Error(), ": "); found {
		if path, ok := j.pathOf(flag); ok {
			return j.campaign.Problem(path, fmt.Errorf("%s (job %s)", text, j.Name())), true
		}
	}
	return fmt.Errorf("%s: %s: %w", j.campaign.File, j.Name(), err), false
}

// pathOf is where the file says the value of a flag of the job's.
func (j *Job) pathOf(flag string) (string, bool) {
	switch flag {
	case "hardware":
		return j.Hardware.Path, true
	case "model":
		return j.Model.Path, true
	case "variant":
		return j.Variant.Path, j.Variant.Path != ""
	case "tp":
		path, _ := j.listedTPs()
		return path, true
	case "budget", "out", "shards":
		return flag, true
	}
	i := slices.IndexFunc(j.Flags, func(o Option) bool { return o.Name == flag })
	if i < 0 {
		return "", false
	}
	return j.Flags[i].Path, true
}

// listedTPs are the job's degrees as the file lists them, and where.
func (j *Job) listedTPs() (path string, tps []int) {
	if j.Model.TPs != nil {
		return j.Model.Path + ".tps", j.Model.TPs
	}
	return "tps", j.campaign.TPs
}

// TPProblem says what is wrong with one of the job's degrees.
func (j *Job) TPProblem(tp int, err error) error {
	path, tps := j.listedTPs()
	return j.campaign.Problem(fmt.Sprintf("%s[%d]", path, slices.Index(tps, tp)), fmt.Errorf("%w (job %s)", err, j.Name()))
}
