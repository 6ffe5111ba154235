// Package bundlediff compares the times of two bundles: by layer and regime,
// and row by row, and says which differences the noise of both does not
// explain.
//
// The noise is taken from the rows themselves. Where both bundles measured
// neighbouring shapes, the logarithms of their ratios B/A differ by what
// scatter both have; the layer's own curve cancels. It holds what changes from
// shot to shot. What changes from one session to the next (clocks, heat) moves
// all rows alike and is not in it: Options.Floor stands for that.
package bundlediff

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
)

// Options of a comparison; the zero value is ready to use.
type Options struct {
	// Floor is the relative change below which two sessions on one device
	// differ anyway; 0 is DefaultFloor.
	Floor float64
	// MaxChange, where it is above 0, is the relative change that a group may
	// show; see Group.Exceeds.
	MaxChange float64
	// Largest is how many single rows are listed; 0 is 10, less is none.
	Largest int
}

// DefaultFloor is the drift between anchors that a run accepts.
const DefaultFloor = 0.01

// Verdicts of groups and rows.
const (
	Noise  = "noise"
	Change = "change"
	Part   = "change in part" // the median stays, at least a tenth of the rows does not
	FewRow = "too few rows"   // no noise can be told
)

// What a group needs before anything is said of it, how many standard errors
// its median and how many deviations a single row must be off, and which share
// of its rows makes a change in part.
const (
	minRows    = 4
	groupSigma = 3
	rowSigma   = 6
	partShare  = 0.10
	// maxSigma caps the noise: repeated shots of measured bundles scatter by
	// less than 4% even at 2 us. More comes of neighbours that are far apart, as
	// in a lean plan, whose ratios differ for reasons of their own. Whole steps
	// have a host in them, which knows no such bound.
	maxSigma = 0.05
)

// Group is one layer in one regime.
type Group struct {
	TP     int     `json:"tp"`
	Table  string  `json:"table"`
	Layer  string  `json:"layer"`
	Regime string  `json:"regime"`
	N      int     `json:"n"`     // rows that both have
	Ratio  float64 `json:"ratio"` // median of B/A
	P10    float64 `json:"p10"`
	P90    float64 `json:"p90"`
	// Noise is the relative scatter (one sigma) of a single row's ratio.
	Noise   float64 `json:"noise"`
	Changed int     `json:"changed_rows"` // rows beyond the noise
	Verdict string  `json:"verdict"`
	// Exceeds: the verdict is a change and the median, or a tenth of the rows,
	// is off by more than Options.MaxChange.
	Exceeds bool `json:"exceeds"`
}

// RowChange is one row of both bundles.
type RowChange struct {
	TP      int     `json:"tp"`
	Table   string  `json:"table"`
	Layer   string  `json:"layer"`
	Shape   string  `json:"shape"`
	AUS     float64 `json:"a_us"`
	BUS     float64 `json:"b_us"`
	Ratio   float64 `json:"ratio"`
	LineA   int     `json:"line_a"`
	LineB   int     `json:"line_b"`
	Verdict string  `json:"verdict"`
}

// Missing is a layer's rows that only one of the two has.
type Missing struct {
	In    string `json:"only_in"` // a or b
	TP    int    `json:"tp"`
	Table string `json:"table"`
	Layer string `json:"layer"`
	Rows  int    `json:"rows"`
	// All: the other bundle has none of the layer's rows.
	All bool `json:"whole_layer"`
	// Exceeds: A measured the layer and B, which has the tp folder, did not.
	Exceeds bool `json:"exceeds"`
}

// Fact is an entry of meta.yaml that differs.
type Fact struct {
	Key string `json:"key"`
	A   string `json:"a"`
	B   string `json:"b"`
}

// Result is a whole comparison.
type Result struct {
	A        string      `json:"a"`
	B        string      `json:"b"`
	Facts    []Fact      `json:"facts"`
	Groups   []Group     `json:"groups"`
	Largest  []RowChange `json:"largest"`
	Missing  []Missing   `json:"missing"`
	Floor    float64     `json:"floor"`
	Max      float64     `json:"max_change,omitempty"`
	Exceeded int         `json:"exceeded"`
}

// pair is a row that both bundles have.
type pair struct {
	a, b *tidy.Row
	log  float64 // of B/A
}

// change is what is found of a pair.
type change struct {
	pair
	verdict string
}

func (c *change) row() RowChange {
	k := &c.a.Key
	return RowChange{TP: k.TP, Table: k.Table, Layer: k.Layer, Shape: k.Shape(), AUS: c.a.PerCallUS(), BUS: c.b.PerCallUS(),
		Ratio: math.Exp(c.log), LineA: c.a.Line, LineB: c.b.Line, Verdict: c.verdict}
}

type layerKey struct {
	tp           int
	table, layer string
}

func layerOf(k tidy.Key) layerKey { return layerKey{k.TP, k.Table, k.Layer} }

// Compare compares B with A.
func Compare(a, b *perfio.Bundle, o Options) *Result {
	if o.Floor <= 0 {
		o.Floor = DefaultFloor
	}
	if o.Largest == 0 {
		o.Largest = 10
	}
	out := &Result{A: a.Dir, B: b.Dir, Facts: facts(a.Meta, b.Meta), Floor: o.Floor, Max: o.MaxChange,
		Groups: []Group{}, Largest: []RowChange{}, Missing: []Missing{}}
	layers, pairs, missing := join(a, b)
	floor := math.Log1p(o.Floor)
	var all []change
	for _, layer := range layers {
		groups, rows := compareLayer(pairs[layer], floor, o.MaxChange)
		out.Groups = append(out.Groups, groups...)
		all = append(all, rows...)
	}
	for _, m := range missing {
		m.Exceeds = o.MaxChange > 0 && m.In == "a" && m.All && b.TP(m.TP) != nil
		out.Missing = append(out.Missing, m)
		if m.Exceeds {
			out.Exceeded++
		}
	}
	for _, g := range out.Groups {
		if g.Exceeds {
			out.Exceeded++
		}
	}
	slices.SortStableFunc(all, func(x, y change) int { return -cmp.Compare(math.Abs(x.log), math.Abs(y.log)) })
	for i := range all[:max(0, min(o.Largest, len(all)))] {
		out.Largest = append(out.Largest, all[i].row())
	}
	return out
}

// join pairs the rows of both, by layer in A's order.
func join(a, b *perfio.Bundle) (layers []layerKey, pairs map[layerKey][]pair, missing []Missing) {
	pairs = map[layerKey][]pair{}
	rowsA, rowsB := tidy.Rows(a), tidy.Rows(b)
	inB := make(map[tidy.Key]*tidy.Row, len(rowsB))
	hasB := map[layerKey]bool{}
	for i := range rowsB {
		inB[rowsB[i].Key] = &rowsB[i]
		hasB[layerOf(rowsB[i].Key)] = true
	}
	onlyA, onlyB := map[layerKey]int{}, map[layerKey]int{}
	hasA := map[layerKey]bool{}
	var order []layerKey
	inA := make(map[tidy.Key]bool, len(rowsA))
	for i := range rowsA {
		r := &rowsA[i]
		layer := layerOf(r.Key)
		if !hasA[layer] {
			hasA[layer] = true
			order = append(order, layer)
		}
		if inA[r.Key] {
			continue // skew.csv may hold a batch several times
		}
		inA[r.Key] = true
		other := inB[r.Key]
		if other == nil {
			onlyA[layer]++
			continue
		}
		if x, y := r.PerCallUS(), other.PerCallUS(); x > 0 && y > 0 {
			pairs[layer] = append(pairs[layer], pair{r, other, math.Log(y / x)})
		}
	}
	layers = slices.Clone(order)
	for i := range rowsB {
		r := &rowsB[i]
		layer := layerOf(r.Key)
		if !hasA[layer] && onlyB[layer] == 0 {
			order = append(order, layer)
		}
		if !inA[r.Key] {
			onlyB[layer]++
		}
	}
	for _, l := range order {
		if n := onlyA[l]; n > 0 {
			missing = append(missing, Missing{In: "a", TP: l.tp, Table: l.table, Layer: l.layer, Rows: n, All: !hasB[l]})
		}
		if n := onlyB[l]; n > 0 {
			missing = append(missing, Missing{In: "b", TP: l.tp, Table: l.table, Layer: l.layer, Rows: n, All: !hasA[l]})
		}
	}
	return layers, pairs, missing
}

func compareLayer(pairs []pair, floor, maxChange float64) ([]Group, []change) {
	noise := scatter(pairs)
	var groups []Group
	var rows []change
	byRegime := map[string][]pair{}
	var regimes []string
	for _, p := range pairs {
		regime := p.a.Regime()
		if byRegime[regime] == nil {
			regimes = append(regimes, regime)
		}
		byRegime[regime] = append(byRegime[regime], p)
	}
	for _, regime := range regimes {
		list := byRegime[regime]
		sigma := scatter(list)
		if math.IsNaN(sigma) {
			sigma = noise // too few neighbours: the layer's
		}
		g, changes := judge(regime, list, sigma, floor, maxChange)
		groups, rows = append(groups, g), append(rows, changes...)
	}
	return groups, rows
}

func judge(regime string, list []pair, sigma, floor, maxChange float64) (Group, []change) {
	k := list[0].a.Key
	g := Group{TP: k.TP, Table: k.Table, Layer: k.Layer, Regime: regime, N: len(list), Verdict: FewRow}
	logs := make([]float64, len(list))
	for i, p := range list {
		logs[i] = p.log
	}
	slices.Sort(logs)
	median := quantile(logs, 0.5)
	g.Ratio, g.P10, g.P90 = math.Exp(median), math.Exp(quantile(logs, 0.1)), math.Exp(quantile(logs, 0.9))
	known := !math.IsNaN(sigma) && len(list) >= minRows
	rowLimit := math.Inf(1)
	if known {
		g.Noise = math.Expm1(sigma)
		rowLimit = max(floor, rowSigma*sigma)
	}
	large := 0
	limit := math.Log1p(maxChange)
	var rows []change // those that differ at all
	for _, p := range list {
		c := change{p, Noise}
		switch {
		case !known:
			c.verdict = FewRow
		case math.Abs(p.log) > rowLimit:
			c.verdict = Change
			g.Changed++
			if math.Abs(p.log) > limit {
				large++
			}
		}
		if p.log != 0 {
			rows = append(rows, c)
		}
	}
	if !known {
		// Nothing tells noise from change: what is off by more than allowed counts.
		g.Exceeds = maxChange > 0 && math.Abs(median) > max(limit, floor)
		return g, rows
	}
	// 1.2533: the standard error of a median, of that of a mean.
	switch standard := 1.2533 * sigma / math.Sqrt(float64(len(list))); {
	case math.Abs(median) > max(floor, groupSigma*standard):
		g.Verdict = Change
	case float64(g.Changed) >= partShare*float64(len(list)):
		g.Verdict = Part
	default:
		g.Verdict = Noise
	}
	if maxChange > 0 && g.Verdict != Noise {
		g.Exceeds = math.Abs(median) > limit || float64(large) >= partShare*float64(len(list))
	}
	return g, rows
}

// scatter is the noise of a single log ratio, from neighbours that differ in
// the innermost key only (whole steps: that follow one another), at most maxSigma;
// NaN with fewer than minRows of them.
func scatter(list []pair) float64 {
	var steps []float64
	for i := 1; i < len(list); i++ {
		if neighbours(list[i-1].a.Key, list[i].a.Key) {
			steps = append(steps, math.Abs(list[i].log-list[i-1].log))
		}
	}
	if len(steps) < minRows {
		return math.NaN()
	}
	slices.Sort(steps)
	// 1.4826 makes a deviation of a median; a step holds two rows' noise.
	sigma := 1.4826 * quantile(steps, 0.5) / math.Sqrt2
	if list[0].a.Table != "step" {
		sigma = min(sigma, maxSigma)
	}
	return sigma
}

func neighbours(a, b tidy.Key) bool {
	switch a.Table {
	case "dense":
		a.Tokens = b.Tokens
	case "per_sequence":
		a.Sequences = b.Sequences
	case "attention":
		if a.NDecode == 0 { // a prefill: the history is the innermost key
			a.KVPrefill = b.KVPrefill
		}
		a.KVDecode = b.KVDecode
	case "collectives":
		a.Tokens, a.Bytes = b.Tokens, b.Bytes
	case "moe":
		a.ActivatedExperts = b.ActivatedExperts
	case "skew": // cases of one shape and file line, or the next line's
		a.Case, a.KVDecode, a.NB, a.KVS, a.KVBig = b.Case, b.KVDecode, b.NB, b.KVS, b.KVBig
	case "step":
		return a.Layer == b.Layer && a.Case == b.Case && a.Step.Depth == b.Step.Depth
	}
	return a == b
}

// quantile of a sorted list, with linear interpolation.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// facts lists what meta.yaml says differently and what a change may come from.
func facts(a, b *perfio.Meta) []Fact {
	out := []Fact{}
	for _, path := range [][]string{
		{"hardware"}, {"gpu"}, {"model"}, {"variant"}, {"tp_mode"}, {"origin"}, {"driver"}, {"profiler_version"}, {"vllm_version"}, {"torch_version"},
		{"cuda_version"}, {"driver_version"}, {"attention_backend"}, {"model_runner"}, {"order"}, {"blocks"}, {"profiled_at"},
		{"measurement_iterations"}, {"skew_statistic"},
		{"engine_effective", "max_num_batched_tokens"}, {"engine_effective", "max_num_seqs"}, {"engine_effective", "block_size"},
	} {
		if x, y := a.Text(path...), b.Text(path...); x != y {
			out = append(out, Fact{path[len(path)-1], x, y})
		}
	}
	for _, degree := range a.TPDegrees() {
		for _, mode := range perfio.StepModes() {
			for _, key := range []string{"graph_mode", "model_runner", "vllm_version", "cpu"} {
				path := []string{"steps", "per_tp", strconv.Itoa(degree), mode, key}
				if x, y := a.Text(path...), b.Text(path...); x != "" && y != "" && x != y {
					out = append(out, Fact{fmt.Sprintf("steps of tp%d, %s: %s", degree, mode, key), x, y})
				}
			}
		}
	}
	return out
}
