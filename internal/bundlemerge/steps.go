package bundlemerge

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
)

// unionSteps appends the rows of b that a lacks. A serving run has steps of one
// and the same batch: the first of them is held against the first, and so on.
func unionSteps(degree int, a, b []perfio.StepRow) []perfio.StepRow {
	if b == nil {
		return a
	}
	has := map[tidy.Key]int{}
	for i := range a {
		has[tidy.StepKeyOf(degree, &a[i])]++
	}
	out := append([]perfio.StepRow{}, a...)
	for i := range b {
		if key := tidy.StepKeyOf(degree, &b[i]); has[key] > 0 {
			has[key]--
		} else {
			out = append(out, b[i])
		}
	}
	perfio.SortSteps(out)
	return out
}

// stepSetup are the keys of a mode's block in meta.yaml in which parts agree.
var stepSetup = []string{"async_scheduling", "graph_mode", "model_runner", "vllm_version", "cpu"}

// sameSteps: parts that hold steps of a mode were measured on one host, by one
// engine that runs them in one way.
func sameSteps(a, b *perfio.Bundle) error {
	var problems []error
	differ := func(x, y string, path ...string) {
		if x != "" && y != "" && x != y {
			problems = append(problems, fmt.Errorf("%s: %s: found %q, expected %q as in %s", b.Dir, dotted(path), y, x, a.Dir))
		}
	}
	for i := range a.TPs {
		other := b.TP(a.TPs[i].Degree)
		if other == nil || len(a.TPs[i].Steps) == 0 || len(other.Steps) == 0 {
			continue
		}
		differ(a.Meta.Text("steps", "statistic"), b.Meta.Text("steps", "statistic"), "steps", "statistic")
		for _, mode := range perfio.StepModes() {
			if !hasMode(a.TPs[i].Steps, mode) || !hasMode(other.Steps, mode) {
				continue
			}
			for _, key := range stepSetup {
				path := append(stepPath(other.Degree, mode), key)
				differ(a.Meta.Text(path...), b.Meta.Text(path...), path...)
			}
			path := append(stepPath(other.Degree, mode), "capture_sizes")
			if x, y := a.Meta.CaptureSizes(other.Degree, mode), b.Meta.CaptureSizes(other.Degree, mode); x != nil && y != nil && !slices.Equal(x, y) {
				differ(fmt.Sprint(x), fmt.Sprint(y), path...)
			}
		}
	}
	return errors.Join(problems...)
}

func dotted(path []string) string {
	text := path[0]
	for _, key := range path[1:] {
		text += "." + key
	}
	return text
}

func stepPath(degree int, mode string) []string {
	return []string{"steps", "per_tp", strconv.Itoa(degree), mode}
}

func hasMode(rows []perfio.StepRow, mode string) bool {
	return slices.ContainsFunc(rows, func(r perfio.StepRow) bool { return r.Mode == mode })
}

// stepsMeta puts together what meta.yaml says of whole steps: of each mode what
// the first part says that holds rows of it.
func (r *Result) stepsMeta(parts []*perfio.Bundle) error {
	var problems []error
	begun := false
	for i := range r.Bundle.TPs {
		tp := &r.Bundle.TPs[i]
		for _, mode := range perfio.StepModes() {
			path := stepPath(tp.Degree, mode)
			from := slices.IndexFunc(parts, func(p *perfio.Bundle) bool {
				part := p.TP(tp.Degree)
				return part != nil && hasMode(part.Steps, mode) && p.Meta.Get(path...) != nil
			})
			if !hasMode(tp.Steps, mode) || from < 0 {
				continue
			}
			meta := parts[from].Meta.Clone()
			block := meta.Get(path...)
			if !begun {
				begun = true
				meta.Delete("steps", "per_tp")
				problems = append(problems, r.Bundle.Meta.Set(meta.Get("steps"), "steps"))
			}
			problems = append(problems, r.Bundle.Meta.Set(block, path...), r.countSteps(tp.Steps, mode, path))
		}
	}
	if !begun {
		r.Bundle.Meta.Delete("steps")
	}
	return errors.Join(problems...)
}

// countSteps puts right what a mode's block says of its rows, where they are of
// several parts.
func (r *Result) countSteps(rows []perfio.StepRow, mode string, path []string) error {
	count := 0
	var depths []int
	for i := range rows {
		if rows[i].Mode != mode {
			continue
		}
		count++
		if !slices.Contains(depths, rows[i].Layers) {
			depths = append(depths, rows[i].Layers)
		}
	}
	m := r.Bundle.Meta
	at := func(key string) []string { return append(slices.Clone(path), key) }
	if m.Int(at("rows")...) == count {
		return nil
	}
	m.Delete(at("boot_seconds")...) // of one part's boots
	return errors.Join(m.Set(count, at("rows")...), m.Set(depths, at("layers")...))
}
