// Package bundlemerge puts complementary parts of one bundle together: tables,
// degrees or rows that were measured in runs apart.
package bundlemerge

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/layerprof/layerprof/internal/bundlediff"
	"github.com/layerprof/layerprof/perfio"
)

// Conflict is a row, or a layer's regime, that two parts hold and that differs
// by more than their noise.
type Conflict struct {
	TP     int     `json:"tp"`
	Table  string  `json:"table"`
	Layer  string  `json:"layer"`
	What   string  `json:"what"` // the row's shape, or the regime
	Rows   int     `json:"rows"`
	AUS    float64 `json:"a_us,omitempty"` // of a single row
	BUS    float64 `json:"b_us,omitempty"`
	Ratio  float64 `json:"ratio"`
	Of     string  `json:"of"`     // the part whose row differs
	Line   int     `json:"line"`   // its line, 0 for a regime
	Beside string  `json:"beside"` // the parts before it
}

// Result of a merge.
type Result struct {
	Bundle    *perfio.Bundle
	Conflicts []Conflict
	// Notes say what the bundle lacks that a part had.
	Notes []string
}

// maxListed bounds the rows of one pair of parts that are listed one by one.
const maxListed = 1000

// Merge puts the parts together, in the first one's statistic of skew times; where two hold a row, the first one's counts,
// or with keepLast the last one's: but of whole steps, of which a run's own go
// together. Rows and meta.yaml keep the first part's order and place.
// Parts that were measured differently are an error that names every key of
// meta.yaml in which they differ. floor is the relative difference that is never
// a conflict; 0 is bundlediff.DefaultFloor.
func Merge(parts []*perfio.Bundle, floor float64, keepLast bool) (*Result, error) {
	if len(parts) < 2 {
		return nil, fmt.Errorf("found %d parts, expected two or more", len(parts))
	}
	var problems []error
	for i, p := range parts {
		for _, before := range parts[:i] {
			if err := sameSetup(before, p); err != nil {
				problems = append(problems, err)
				break
			}
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	parts, notes, err := oneStatistic(parts)
	if err != nil {
		return nil, err
	}
	out := &Result{Bundle: &perfio.Bundle{Meta: parts[0].Meta.Clone()}, Notes: notes}
	for i, p := range parts {
		if i > 0 {
			out.compare(p, parts[:i], floor)
		}
		for _, tp := range p.TPs {
			out.add(tp, keepLast)
		}
	}
	slices.SortFunc(out.Bundle.TPs, func(a, b perfio.TP) int { return a.Degree - b.Degree })
	return out, out.finishMeta(parts)
}

// setup are the keys of meta.yaml in which parts of one bundle agree; one that
// only one part records is not held against the other.
var setup = [][]string{
	{"hardware"}, {"gpu"}, {"model"}, {"variant"}, {"architecture"}, {"origin"}, {"driver"}, {"tp_mode"}, {"vllm_version"}, {"torch_version"},
	{"cuda_version"}, {"attention_backend"}, {"model_runner"}, {"blocks"}, {"measurement_iterations"},
	{"engine_effective", "block_size"}, {"engine_effective", "max_num_batched_tokens"}, {"engine_effective", "max_num_seqs"},
	{"engine_effective", "max_model_len"},
}

func sameSetup(a, b *perfio.Bundle) error {
	var problems []error
	for _, path := range setup {
		x, y := a.Meta.Text(path...), b.Meta.Text(path...)
		if x != "" && y != "" && x != y {
			problems = append(problems, fmt.Errorf("%s: %s: found %q, expected %q as in %s", b.Dir, path[len(path)-1], y, x, a.Dir))
		}
	}
	if x, y := a.Meta.PrefillFirst(), b.Meta.PrefillFirst(); x != y && hasMixed(a) && hasMixed(b) {
		problems = append(problems, fmt.Errorf("%s: order: found %s, expected %s as in %s, since both hold mixed batches", b.Dir, orderOf(b), orderOf(a), a.Dir))
	}
	if x, y := a.Meta.SkewRuns(), b.Meta.SkewRuns(); x != y && (x == 0 || y == 0) && hasSkew(a) && hasSkew(b) {
		problems = append(problems, fmt.Errorf("%s: skew_sum_of: found %d, expected %d as in %s: 0 is an unknown number of runs", b.Dir, y, x, a.Dir))
	}
	return errors.Join(append(problems, sameSteps(a, b))...)
}

// hasMixed says whether a part holds times that depend on the order of a batch.
func hasMixed(b *perfio.Bundle) bool {
	return slices.ContainsFunc(b.TPs, func(tp perfio.TP) bool {
		return slices.ContainsFunc(tp.Attention, func(r perfio.AttentionRow) bool { return r.PrefillChunk > 0 && r.NDecode > 0 }) ||
			slices.ContainsFunc(tp.Skew, func(r perfio.SkewRow) bool { return r.PC > 0 })
	})
}

func orderOf(b *perfio.Bundle) string {
	if order := b.Meta.Text("order"); order != "" {
		return strconv.Quote(order)
	}
	return "none, which is the prefill first"
}

func hasFit(b *perfio.Bundle) bool {
	return slices.ContainsFunc(b.TPs, func(tp perfio.TP) bool { return tp.SkewFit != nil })
}

func hasSkew(b *perfio.Bundle) bool {
	return slices.ContainsFunc(b.TPs, func(tp perfio.TP) bool { return len(tp.Skew) > 0 })
}

// compare lists where a part contradicts what is merged already.
func (r *Result) compare(p *perfio.Bundle, before []*perfio.Bundle, floor float64) {
	names := ""
	for i, b := range before {
		if i > 0 {
			names += ", "
		}
		names += b.Dir
	}
	merged := *r.Bundle
	diff := bundlediff.Compare(&merged, p, bundlediff.Options{Floor: floor, Largest: maxListed})
	for _, g := range diff.Groups {
		if g.Verdict == bundlediff.Change || g.Verdict == bundlediff.Part {
			r.Conflicts = append(r.Conflicts, Conflict{TP: g.TP, Table: g.Table, Layer: g.Layer, What: g.Regime + " (" + g.Verdict + ")",
				Rows: g.N, Ratio: g.Ratio, Of: p.Dir, Beside: names})
		}
	}
	for _, c := range diff.Largest {
		// Without neighbours nothing tells the noise: the floor decides.
		few := c.Verdict == bundlediff.FewRow && (c.Ratio > 1+diff.Floor || 1/c.Ratio > 1+diff.Floor)
		if c.Verdict == bundlediff.Change || few {
			r.Conflicts = append(r.Conflicts, Conflict{TP: c.TP, Table: c.Table, Layer: c.Layer, What: c.Shape, Rows: 1, AUS: c.AUS, BUS: c.BUS,
				Ratio: c.Ratio, Of: p.Dir, Line: c.LineB, Beside: names})
		}
	}
}

// add takes the rows of a degree that are not there yet, and with replace the
// others too.
func (r *Result) add(tp perfio.TP, replace bool) {
	to := r.Bundle.TP(tp.Degree)
	if to == nil {
		r.Bundle.TPs = append(r.Bundle.TPs, perfio.TP{Degree: tp.Degree})
		to = r.Bundle.TP(tp.Degree)
	}
	to.Dense = union(to.Dense, tp.Dense, replace, func(r perfio.DenseRow) any { return [2]any{r.Layer, r.Tokens} })
	to.PerSequence = union(to.PerSequence, tp.PerSequence, replace, func(r perfio.SequenceRow) any { return [2]any{r.Layer, r.Sequences} })
	to.Attention = union(to.Attention, tp.Attention, replace, func(r perfio.AttentionRow) any {
		return [4]int{r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode}
	})
	to.MoE = union(to.MoE, tp.MoE, replace, func(r perfio.MoERow) any { return [2]int{r.Tokens, r.ActivatedExperts} })
	to.Skew = union(to.Skew, tp.Skew, replace, func(r perfio.SkewRow) any { return [6]any{r.N, r.NB, r.Skew, r.PC, r.KP, r.KVS} })
	to.Steps = unionSteps(tp.Degree, to.Steps, tp.Steps)
	to.Collectives = union(to.Collectives, tp.Collectives, replace, func(r perfio.CollectiveRow) any {
		return [4]any{r.Layer, r.Collective, r.Tokens, r.Bytes}
	})
	to.Batches = union(to.Batches, tp.Batches, replace, func(r perfio.BatchRow) any { return fmt.Sprint(r.Requests) })
}

// union appends the rows of b whose key a lacks, and with replace puts the
// others in the place of a's; nil stays nil.
func union[T any](a, b []T, replace bool, key func(T) any) []T {
	if b == nil {
		return a
	}
	out := append([]T{}, a...)
	at := make(map[any]int, len(a))
	for i, row := range a {
		at[key(row)] = i
	}
	for _, row := range b {
		k := key(row)
		i, has := at[k]
		switch {
		case !has:
			at[k] = len(out)
			out = append(out, row)
		case replace:
			out[i] = row
		}
	}
	return out
}

// finishMeta says which degrees there are and where they come from. A fit goes
// along only if its part is the only one with a skew sweep.
func (r *Result) finishMeta(parts []*perfio.Bundle) error {
	m := r.Bundle.Meta
	var degrees []int
	for _, tp := range r.Bundle.TPs {
		degrees = append(degrees, tp.Degree)
	}
	var from []string
	owner, sweeps := -1, 0
	for i, p := range parts {
		from = append(from, p.Meta.ProfiledAt())
		if hasSkew(p) || hasFit(p) {
			owner = i
			sweeps++
		}
	}
	err := errors.Join(m.Set(degrees, "tp_degrees"), m.Set(from, "merged_from_profiled_at"), r.stepsMeta(parts))
	if i := slices.IndexFunc(parts, hasMixed); i >= 0 {
		if order := parts[i].Meta.Text("order"); order != "" {
			err = errors.Join(err, m.Set(order, "order"))
		} else {
			m.Delete("order")
		}
	}
	if owner < 0 {
		return err
	}
	if node := parts[owner].Meta.Get("skew_fit"); sweeps == 1 && node != nil {
		for _, tp := range parts[owner].TPs {
			r.Bundle.TP(tp.Degree).SkewFit = tp.SkewFit
		}
		return errors.Join(err, m.Set(parts[owner].Meta.Clone().Get("skew_fit"), "skew_fit"))
	}
	m.Delete("skew_fit")
	if slices.ContainsFunc(parts, hasFit) {
		r.Notes = append(r.Notes, "the skew fit is left out, since several parts hold a skew sweep: profile fit makes it anew")
	}
	return errors.Join(err, m.Set(false, "skew_fit", "enabled"))
}
