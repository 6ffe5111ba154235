package report

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/internal/bundlediff"
	"github.com/layerprof/layerprof/internal/chart"
	"github.com/layerprof/layerprof/internal/inspection"
	"github.com/layerprof/layerprof/internal/lint"
	"github.com/layerprof/layerprof/perfio"
)

// What a page shows at most; whatever is beyond is named on the page. A bundle
// of a million rows must not make a page that no browser opens.
const (
	maxFigures  = 48
	maxPoints   = 2500    // of one curve
	maxValues   = 160_000 // of all curves and grids of a bundle
	maxSide     = 96      // rows or columns of a grid
	maxScatter  = 1200    // points of a cloud
	maxBuckets  = 8000
	maxFindings = 200
	maxDegrees  = 8
	maxGroups   = 400
	maxMeta     = 64 << 10 // bytes of a meta.yaml
)

// page is what the template shows; Data is what the scripts draw.
type page struct {
	Title       string
	Bundles     []*bundleView
	Tables      []figure // curves
	Findings    []finding
	Comparisons []comparison
	Data        data

	curves map[string]*curve
	pool   map[string]int // index of an axis in Data.Axes, by its text
	values []int          // values shown so far, by bundle
}

// bundleView is a bundle in the page's text.
type bundleView struct {
	Letter     string // A, B, ...
	Name       string // hardware, model, variant
	Path       string
	Origin     string
	Synthetic  bool // not measured on this hardware
	Inspection *inspection.Inspection
	Problem    string // why Inspection is nil
	Provenance []fact
	Coverage   []coverageRow
	Meta       string
	MetaCut    bool
	Rows       int
	Errors     int // findings
	Warnings   int
	Judged     []judgedRow
	Drift      driftView
	Steps      []stepMode
	LeftOut    []string // what the page does not show of it
	ByDegree   []int
}

// fact is a named value.
type fact struct{ Name, Value string }

// figure is a place for a plot.
type figure struct {
	ID      string
	Anchors []string // further ids: those of lint
	Title   string
	Axis    string
	Table   string
	// Findings that the figure shows.
	Findings []findingRef
}

type findingRef struct{ ID, Text string }

// finding is one of lint's.
type finding struct {
	lint.Finding
	HTMLID string
	Letter string
	Where  string
}

// comparison is bundle A beside another.
type comparison struct {
	Letter string
	*bundlediff.Result
	Groups []bundlediff.Group
	Cut    int
}

// data is the page's JSON.
type data struct {
	Bundles   []bundleData  `json:"bundles"`
	Axes      [][]int       `json:"axes"`
	Curves    []*curve      `json:"curves"`
	Grids     []gridData    `json:"grids"`
	Judged    []judgedData  `json:"judged"`
	Alphas    []alphaData   `json:"alphas"`
	Skews     []skewData    `json:"skews"`
	Drifts    []driftData   `json:"drifts"`
	Steps     []stepData    `json:"steps"`
	Findings  []findingData `json:"findings"`
	Truncated bool          `json:"truncated,omitempty"`
}

type bundleData struct {
	Letter string `json:"letter"`
	Name   string `json:"name"`
}

// findingData lets a link show its rows.
type findingData struct {
	ID     string `json:"id"` // in the page
	Bundle int    `json:"bundle"`
	Plot   string `json:"plot"`
	TP     int    `json:"tp,omitempty"`
	// Keys are prefill_chunk, kv_prefill, n_decode, kv_decode of attention,
	// tokens or sequences of curves, tokens and experts of moe.
	Keys [][]int `json:"keys,omitempty"`
}

func newBundleView(i int, b *perfio.Bundle) *bundleView {
	m := b.Meta
	v := &bundleView{
		Letter: string(rune('A' + i)), Path: b.Dir, Origin: m.Origin(), Synthetic: m.Origin() != perfio.OriginMeasured,
	}
	var parts []string
	for _, s := range []string{m.Hardware(), m.Model(), m.Variant()} {
		if s != "" {
			parts = append(parts, chart.Printable(s))
		}
	}
	if v.Name = strings.Join(parts, " · "); v.Name == "" {
		v.Name = "bundle without names"
	}
	for _, tp := range b.TPs {
		v.Rows += len(tp.Dense) + len(tp.PerSequence) + len(tp.Attention) + len(tp.MoE) + len(tp.Skew) + len(tp.Collectives) + len(tp.Steps)
		v.ByDegree = append(v.ByDegree, tp.Degree)
	}
	return v
}

// Headline is the figure that says most of a bundle's lookups, nil where there
// is none.
func (v *bundleView) Headline() *fact {
	var best *judgedRow
	for i := range v.Judged {
		r := &v.Judged[i]
		if r.Kind == "all" && (best == nil || r.Rule == "accurate" && best.Rule != "accurate") {
			best = r
		}
	}
	if best == nil {
		return nil
	}
	return &fact{fmt.Sprintf("error of %s, %s, against %s, p50 / p90", best.Layer, best.Rule, best.Source), fmt.Sprintf("%.1f%% / %.1f%%", best.P50, best.P90)}
}

// Cut reports whether a limit of the page kept something of the bundle out.
func (v *bundleView) Cut() bool {
	return slices.ContainsFunc(v.LeftOut, func(s string) bool { return !strings.HasPrefix(s, "the roofline") })
}

// Degrees are those of all bundles, for the ids of figures.
func (p *page) Degrees() []int {
	var out []int
	for _, b := range p.Bundles {
		for _, d := range b.ByDegree[:min(len(b.ByDegree), maxDegrees)] {
			if !slices.Contains(out, d) {
				out = append(out, d)
			}
		}
	}
	slices.Sort(out)
	return out
}

// HasSteps reports whether a bundle holds whole steps.
func (p *page) HasSteps() bool {
	return slices.ContainsFunc(p.Bundles, func(v *bundleView) bool { return len(v.Steps) > 0 })
}

// FindingsIn are those shown by figures of a name, whatever the degree: a
// section's.
func (p *page) FindingsIn(names ...string) []findingRef {
	var out []findingRef
	for _, f := range p.Findings {
		name := f.Plot
		if strings.HasPrefix(name, "tp") {
			_, name, _ = strings.Cut(name, "-")
		}
		if slices.Contains(names, name) {
			out = append(out, findingRef{f.HTMLID, fmt.Sprintf("%s: %s", f.Letter, f.Rule)})
		}
	}
	return out[:min(len(out), maxFigures)]
}

// Facts are the bundles' provenance side by side.
func (p *page) Facts() []facts {
	var out []facts
	for i, f := range p.Bundles[0].Provenance {
		row := facts{Name: f.Name}
		for _, b := range p.Bundles {
			row.Values = append(row.Values, b.Provenance[i].Value)
		}
		out = append(out, row)
	}
	return out
}

type facts struct {
	Name   string
	Values []string
}

func (v *bundleView) leaveOut(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(v.LeftOut, text) {
		v.LeftOut = append(v.LeftOut, text)
	}
}

// add takes bundle i into the page.
func (p *page) add(i int, s Source, all []*perfio.Bundle) error {
	if p.curves == nil {
		p.curves, p.pool = map[string]*curve{}, map[string]int{}
		p.values = make([]int, len(all))
	}
	b, v := all[i], p.Bundles[i]
	p.Data.Bundles = append(p.Data.Bundles, bundleData{v.Letter, v.Name})
	if len(b.TPs) > maxDegrees {
		v.leaveOut("tensor-parallel degrees above %d", b.TPs[maxDegrees-1].Degree)
		shown := *b
		shown.TPs = b.TPs[:maxDegrees]
		b = &shown
	}
	// Fitting the accurate rules takes longest.
	g := &judging{bundle: i}
	judged := make(chan error, 1)
	go func() { judged <- g.judge(s, b) }()
	if in, err := inspection.Of(b); err != nil {
		v.Problem = err.Error()
	} else {
		v.Inspection = in
		v.cover()
	}
	v.provenance(b.Meta)
	found := p.lint(i, b, all)
	p.addCurves(i, b, found)
	p.addGrids(i, b, found)
	p.addAlphas(i, b, found)
	p.addSteps(i, b, found)
	err := p.drift(i, s, b)
	if err := errors.Join(err, <-judged); err != nil {
		return err
	}
	for _, text := range g.left {
		v.leaveOut("%s", text)
	}
	for _, j := range g.list {
		p.addJudged(j)
	}
	return nil
}

// provenance lists what meta.yaml says in short, and shows the file.
func (v *bundleView) provenance(m *perfio.Meta) {
	text := func(path ...string) string { return m.Text(path...) }
	for _, f := range []fact{
		{"origin", m.Origin()}, {"hardware", m.Hardware()}, {"gpu", m.GPU()}, {"model", m.Model()}, {"variant", m.Variant()},
		{"architecture", m.Architecture()}, {"profiled_at", m.ProfiledAt()}, {"profiler_version", text("profiler_version")},
		{"driver", strings.TrimSpace(text("driver") + " " + text("driver_version"))}, {"vllm_version", m.VLLMVersion()},
		{"cuda_version", m.CUDAVersion()}, {"attention_backend", m.AttentionBackend()}, {"model_runner", m.ModelRunner()},
		{"dtype", text("engine_effective", "dtype")}, {"kv_cache_dtype", text("engine_effective", "kv_cache_dtype")},
		{"order of a mixed batch", text("order")}, {"decoder blocks booted", text("blocks")}, {"plan", text("plan")},
		{"timed runs of a shot", text("measurement_iterations")}, {"skew_statistic", m.SkewStatistic()},
	} {
		if f.Value == "" {
			f.Value = "not recorded"
		}
		v.Provenance = append(v.Provenance, fact{f.Name, chart.Printable(f.Value)})
	}
	if m.Root != nil {
		text, err := yaml.Marshal(m.Root)
		if err != nil {
			v.Meta = err.Error()
			return
		}
		lines := strings.Split(string(text[:min(len(text), maxMeta)]), "\n")
		for i := range lines {
			lines[i] = chart.Printable(lines[i])
		}
		v.Meta, v.MetaCut = strings.Join(lines, "\n"), len(text) > maxMeta
	}
}

// coverageRow is one line of the table of what was measured.
type coverageRow struct {
	TP                 int
	Table, Layer, Axis string
	Min, Max, Count    string
	Note               string
}

func (v *bundleView) cover() {
	in := v.Inspection
	add := func(r coverageRow, min, max, count int) {
		r.Min, r.Max, r.Count = fmt.Sprint(min), fmt.Sprint(max), fmt.Sprint(count)
		r.Layer = chart.Printable(r.Layer)
		// Layers measured at the same places share a line.
		if n := len(v.Coverage) - 1; n >= 0 && r.Layer != "" {
			last := v.Coverage[n]
			if last.Layer = r.Layer; last == r {
				v.Coverage[n].Layer += ", " + r.Layer
				return
			}
		}
		v.Coverage = append(v.Coverage, r)
	}
	for i, c := range in.Coverage {
		if len(c.Dense)+len(c.PerSequence) > maxFigures {
			v.leaveOut("layers beyond the first %d of a degree", maxFigures)
		}
		for _, l := range c.Dense[:min(len(c.Dense), maxFigures)] {
			add(coverageRow{TP: c.TP, Table: "dense", Layer: l.Layer, Axis: "tokens"}, l.Min, l.Max, l.Count)
		}
		for _, l := range c.PerSequence[:min(len(c.PerSequence), maxFigures)] {
			add(coverageRow{TP: c.TP, Table: "per_sequence", Layer: l.Layer, Axis: "sequences"}, l.Min, l.Max, l.Count)
		}
		if a := c.Attention; a != nil {
			note := fmt.Sprintf("%d rows", a.Points)
			if g := in.TPs[i].Gaps; g != nil {
				note += fmt.Sprintf("; %d of the axes' %d combinations not measured", g.Missing, g.Product)
			}
			add(coverageRow{TP: c.TP, Table: "attention", Axis: "prefill_chunk", Note: note}, a.PrefillChunk.Min, a.PrefillChunk.Max, a.PrefillChunk.Count)
			add(coverageRow{TP: c.TP, Table: "attention", Axis: "kv_prefill"}, a.KVPrefill.Min, a.KVPrefill.Max, a.KVPrefill.Count)
			add(coverageRow{TP: c.TP, Table: "attention", Axis: "n_decode"}, a.NDecode.Min, a.NDecode.Max, a.NDecode.Count)
			add(coverageRow{TP: c.TP, Table: "attention", Axis: "kv_decode"}, a.KVDecode.Min, a.KVDecode.Max, a.KVDecode.Count)
		}
		if m := c.MoE; m != nil {
			note := fmt.Sprintf("%d rows", m.Points)
			add(coverageRow{TP: c.TP, Table: "moe", Axis: "tokens", Note: note}, m.Tokens.Min, m.Tokens.Max, m.Tokens.Count)
			add(coverageRow{TP: c.TP, Table: "moe", Axis: "activated_experts"}, m.ActivatedExperts.Min, m.ActivatedExperts.Max, m.ActivatedExperts.Count)
		}
		for _, t := range []struct{ name, what string }{{"skew", "cases"}, {"skew_fit", "buckets"}, {"batches", "random batches"}, {"collectives", "exchanges of ranks"}, {"step", "rows of whole steps"}} {
			if n := in.TPs[i].Rows[t.name]; n > 0 {
				v.Coverage = append(v.Coverage, coverageRow{TP: c.TP, Table: t.name, Count: fmt.Sprint(n), Note: t.what})
			}
		}
	}
}

// lint finds what is wrong with bundle i.
func (p *page) lint(i int, b *perfio.Bundle, all []*perfio.Bundle) []lint.Finding {
	v := p.Bundles[i]
	found := slices.Concat(lint.Check(b), lint.Together(b, all))
	slices.SortStableFunc(found, func(x, y lint.Finding) int { return strings.Compare(string(x.Severity), string(y.Severity)) })
	for _, f := range found {
		if f.Severity == lint.Error {
			v.Errors++
		} else {
			v.Warnings++
		}
	}
	if len(found) > maxFindings {
		v.leaveOut("%d of %d findings, of which perfcheck lint lists all", len(found)-maxFindings, len(found))
		found = found[:maxFindings]
	}
	for j := range found {
		f := &found[j]
		id := f.ID
		if i > 0 {
			id = v.Letter + "-" + id
		}
		f.Reason = chart.Printable(f.Reason)
		f.Again = chart.Printable(f.Again)
		where := strings.TrimLeft(strings.TrimPrefix(f.Places[0].String(), strings.TrimSuffix(b.Dir, "/")), "/:")
		p.Findings = append(p.Findings, finding{Finding: *f, HTMLID: id, Letter: v.Letter, Where: chart.Printable(where)})
		d := findingData{ID: id, Bundle: i, Plot: f.Plot}
		for _, k := range f.Keys {
			d.TP = k.TP
			switch k.Table {
			case "attention":
				d.Keys = append(d.Keys, []int{k.PrefillChunk, k.KVPrefill, k.NDecode, k.KVDecode})
			case "moe":
				d.Keys = append(d.Keys, []int{0, 0, k.Tokens, k.ActivatedExperts})
			case "dense", "per_sequence", "collectives":
				d.Keys = append(d.Keys, []int{k.Tokens + k.Sequences})
			}
		}
		p.Data.Findings = append(p.Data.Findings, d)
	}
	return found
}

// compare puts bundle i beside the first.
func (p *page) compare(a, b *perfio.Bundle, i int) {
	r := bundlediff.Compare(a, b, bundlediff.Options{})
	for j := range r.Groups {
		r.Groups[j].Layer = chart.Printable(r.Groups[j].Layer)
	}
	for j := range r.Facts {
		f := &r.Facts[j]
		f.Key, f.A, f.B = chart.Printable(f.Key), chart.Printable(f.A), chart.Printable(f.B)
	}
	for j := range r.Largest {
		r.Largest[j].Layer = chart.Printable(r.Largest[j].Layer)
	}
	for j := range r.Missing {
		r.Missing[j].Layer = chart.Printable(r.Missing[j].Layer)
	}
	// What changed comes first, the most first.
	slices.SortStableFunc(r.Groups, func(x, y bundlediff.Group) int {
		if xn, yn := x.Verdict == bundlediff.Noise, y.Verdict == bundlediff.Noise; xn != yn {
			if xn {
				return 1
			}
			return -1
		}
		return cmp.Compare(math.Abs(math.Log(y.Ratio)), math.Abs(math.Log(x.Ratio)))
	})
	c := comparison{Letter: p.Bundles[i].Letter, Result: r, Groups: r.Groups}
	if len(c.Groups) > maxGroups {
		c.Cut, c.Groups = len(c.Groups)-maxGroups, c.Groups[:maxGroups]
	}
	r.Missing = r.Missing[:min(len(r.Missing), maxGroups)]
	p.Comparisons = append(p.Comparisons, c)
}

// finish makes what depends on all bundles.
func (p *page) finish() {
	for i := range p.Tables {
		f := &p.Tables[i]
		for _, one := range p.Findings {
			if slices.Contains(f.Anchors, one.Plot) {
				f.Findings = append(f.Findings, findingRef{one.HTMLID, fmt.Sprintf("%s: %s", one.Letter, one.Rule)})
			}
		}
	}
	p.Title = "layerprof report: " + p.Bundles[0].Name
	if n := len(p.Bundles); n > 1 {
		p.Title += fmt.Sprintf(" and %d more", n-1)
	}
}

// spend takes values of bundle i's share; false where it is used up.
func (p *page) spend(i, n int) bool {
	if p.values[i]+n > maxValues {
		return false
	}
	p.values[i] += n
	return true
}
