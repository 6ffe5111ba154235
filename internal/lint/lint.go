// Package lint finds what is wrong inside well-formed bundles: numbers that no
// kernel of the named GPU has, curves that contradict themselves, tables that
// do not belong together. A rule's limits stand beside the largest value that
// measured bundles show for good reasons; what is below a limit is not found.
package lint

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/internal/hardware"
	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
)

// Severity of a finding.
type Severity string

// An Error makes lookups wrong; a Warning may.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Place is a line of a file.
type Place struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
}

func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Finding is one thing that is wrong.
type Finding struct {
	// ID is unique among the findings of a bundle, and the same for the same
	// finding of the same bundle; `perfcheck report` has it as the id of the
	// finding's row. It is made of letters, digits and "._-".
	ID       string   `json:"id"`
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	// Plot is the id of the report's figure that shows the rows; see PlotID.
	Plot string `json:"plot"`
	// Places are the rows, at most MaxPlaces of them; the first is the worst or
	// the first of a range.
	Places []Place `json:"places"`
	Rows   int     `json:"rows"` // all rows, also those that Places leaves out
	Reason string  `json:"reason"`
	// Again are the commands that measure the rows anew, or what is missing, for
	// a shell; … and NEW_ROOT, MENDED and FOLDER are the reader's to choose. ""
	// where measuring does not help.
	Again string `json:"again,omitempty"`
	// Keys are the rows' own, one for each of Places, where Places are rows of
	// dense, per_sequence, attention or moe.
	Keys []tidy.Key `json:"-"`
}

// MaxPlaces bounds how many lines of one finding are listed.
const MaxPlaces = 5

// Rule is one check of one bundle.
type Rule struct {
	Name     string
	Severity Severity
	About    string // what it finds, one line
	check    func(*subject, *reporter)
}

// Rules lists all rules in the order in which they are applied.
func Rules() []Rule {
	return slices.Concat(curveRules, attentionRules, skewRules, rooflineRules, degreeRules, stepRules, metaRules)
}

// Check applies every rule to a bundle that was read strictly and whole.
func Check(b *perfio.Bundle) []Finding {
	s := newSubject(b)
	var out []Finding
	for _, rule := range Rules() {
		r := newReporter(rule, s)
		rule.check(s, r)
		out = append(out, r.found...)
	}
	return out
}

// subject is a bundle with what the rules look at.
type subject struct {
	*perfio.Bundle
	rows  []tidy.Row
	spec  *hardware.Spec           // nil: not known
	arch  *perfio.Architecture     // nil: not shipped
	model *perfio.ModelConfig      // nil: not shipped
	lines map[int][4][][]*tidy.Row // by degree and axis, once asked for
}

func newSubject(b *perfio.Bundle) *subject {
	s := &subject{Bundle: b, rows: tidy.Rows(b), lines: map[int][4][][]*tidy.Row{}}
	if spec, ok := hardware.ByName(b.Meta.GPU()); ok {
		s.spec = spec
	} else if spec, ok := hardware.ByKey(b.Meta.Hardware()); ok && b.Meta.GPU() == "" {
		s.spec = spec
	}
	// Without the two files the rules that need them find nothing.
	if arch, err := perfio.LoadArchitecture(b.Meta.Architecture()); err == nil {
		s.arch = arch
	}
	// A bundle names a shipped config, and no file of this machine.
	if name := b.Meta.Model(); slices.Contains(perfio.ModelConfigs(), name) {
		if model, err := perfio.LoadModelConfig(name); err == nil {
			s.model = model
		}
	}
	return s
}

// layerKey names one layer of one degree.
type layerKey struct {
	tp           int
	table, layer string
}

func keyOf(r *tidy.Row) layerKey { return layerKey{r.TP, r.Table, r.Layer} }

// layers groups the rows of some tables, in the bundle's order.
func (s *subject) layers(tables ...string) (keys []layerKey, rows map[layerKey][]*tidy.Row) {
	rows = map[layerKey][]*tidy.Row{}
	for i := range s.rows {
		r := &s.rows[i]
		if !slices.Contains(tables, r.Table) {
			continue
		}
		k := keyOf(r)
		if rows[k] == nil {
			keys = append(keys, k)
		}
		rows[k] = append(rows[k], r)
	}
	return keys, rows
}

// stable says whether the architecture marks a layer tp_stable.
func (s *subject) stable(layer string) bool {
	if s.arch == nil {
		return false
	}
	e := s.arch.Entry(layer)
	return e != nil && e.TPStable
}

// reporter collects the findings of one rule.
type reporter struct {
	rule  Rule
	s     *subject
	found []Finding
	ids   map[string]int // how many findings had this id
}

func newReporter(rule Rule, s *subject) *reporter {
	return &reporter{rule: rule, s: s, ids: map[string]int{}}
}

// rows reports rows of one table.
func (r *reporter) rows(rows []*tidy.Row, format string, args ...any) {
	plot := PlotID(rows[0].Key)
	f := r.finding(plot, plot, fmt.Sprintf(format, args...))
	f.Rows = len(rows)
	for _, row := range rows[:min(len(rows), MaxPlaces)] {
		f.Places = append(f.Places, Place{r.file(row.File()), row.Line})
		f.Keys = append(f.Keys, row.Key)
	}
	f.Again = r.again(rows[0].TP, rows[0].Table, rows)
	r.found = append(r.found, f)
}

func (r *reporter) last() *Finding { return &r.found[len(r.found)-1] }

// wholly has all rows of the last finding's curve measured anew, of which it
// names some.
func (r *reporter) wholly(rows []*tidy.Row) {
	r.last().Again = r.again(rows[0].TP, rows[0].Table, rows)
}

// place reports a file as a whole, or one line of it.
func (r *reporter) place(file string, line int, again, format string, args ...any) {
	about := strings.ReplaceAll(strings.TrimSuffix(file, path.Ext(file)), "/", "-") // tp1-skew, meta
	plot := figures[r.rule.Name]
	if plot == "" {
		plot = about
	}
	f := r.finding(about, plot, fmt.Sprintf(format, args...))
	f.Places, f.Again = []Place{{r.file(file), line}}, again
	r.found = append(r.found, f)
}

func (r *reporter) finding(about, plot, reason string) Finding {
	id := r.rule.Name + "-" + about
	r.ids[id]++
	if n := r.ids[id]; n > 1 {
		id = fmt.Sprintf("%s-%d", id, n)
	}
	return Finding{ID: id, Rule: r.rule.Name, Severity: r.rule.Severity, Plot: plot, Reason: reason}
}

func (r *reporter) file(name string) string {
	if r.s.Dir == "" {
		return name
	}
	separator := "/"
	if strings.HasSuffix(r.s.Dir, ".tar.zst") {
		separator = ":"
	}
	return strings.TrimSuffix(r.s.Dir, "/") + separator + name
}
