package lint

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// Limits of the rules on whole steps; in brackets the least that measured
// bundles of two GPUs show.
const (
	stepDevice     = 0.98 // a synchronous step over the device's work in it (1.002)
	asyncDevice    = 0.95 // all steps of an asynchronous mode over their forwards (1.003)
	stepKernels    = 0.85 // a synchronous step over the sum of its layers (1.02)
	forwardKernels = 0.70 // the device's forward over the sum of its layers (0.90: compiled kernels are fused)
	stepParts      = 0.01 // how far the parts of a single step are from the whole (0.000)
	partUS         = 2    // beside that: parts are rounded to a tenth
)

var stepRules = []Rule{
	{"step-device", Error, "steps shorter than the device's work in them", checkStepDevice},
	{"step-kernels", Error, "steps shorter than the sum of their layers in the other tables", checkStepKernels},
	{"step-parts", Error, "parts of a step that do not make up its time", checkStepParts},
	{"step-meta", Error, "rows of step.csv without their mode's block in meta.yaml, or that contradict it", checkStepMeta},
}

func async(mode string) bool { return mode == perfio.ModeGraphAsync || mode == perfio.ModeEagerAsync }

// steps are the rows of step.csv as their time of a case.
func (s *subject) steps(of string) []*tidy.Row {
	var out []*tidy.Row
	for i := range s.rows {
		if r := &s.rows[i]; r.Table == "step" && r.Case == of {
			out = append(out, r)
		}
	}
	return out
}

// known adds up times, of which NaN is not known.
func known(us ...float64) float64 {
	sum := 0.0
	for _, v := range us {
		if !math.IsNaN(v) {
			sum += v
		}
	}
	return sum
}

// short gathers rows that are below a limit, the worst first, and reports those
// of one degree and mode together.
type short struct {
	keys  []layerKey
	rows  map[layerKey][]*tidy.Row
	worst map[layerKey]float64 // of the first row, time over its limit
}

func (f *short) add(row *tidy.Row, us float64) {
	if f.rows == nil {
		f.rows, f.worst = map[layerKey][]*tidy.Row{}, map[layerKey]float64{}
	}
	k := keyOf(row)
	if f.rows[k] == nil {
		f.keys = append(f.keys, k)
	}
	f.rows[k] = append(f.rows[k], row)
	if list, off := f.rows[k], row.TimeUS/us; len(list) == 1 || off < f.worst[k] {
		f.worst[k] = off
		list[0], list[len(list)-1] = list[len(list)-1], list[0]
	}
}

func (f *short) report(r *reporter, than string) {
	for _, k := range f.keys {
		list := f.rows[k]
		r.rows(list, "tp%d %s: %d steps are shorter than %s; %s took %.6g us, %.3g times that",
			k.tp, k.layer, len(list), than, list[0].Shape(), list[0].TimeUS, f.worst[k])
	}
}

// checkStepDevice: a synchronous step waits for the device's work in it. An
// asynchronous one may end before its own does, but all of them together cannot.
func checkStepDevice(s *subject, r *reporter) {
	var found short
	type mode struct {
		layerKey
		depth int
	}
	type sums struct {
		steps, device float64
		rows          []*tidy.Row
	}
	ahead := map[mode]*sums{}
	var order []mode
	for _, row := range s.steps(tidy.CaseStep) {
		q := row.StepRow
		if !async(q.Mode) {
			if device := known(q.DeviceWaitUS, q.DeviceForwardUS, q.DeviceAfterUS); row.TimeUS < stepDevice*device {
				found.add(row, device)
			}
			continue
		}
		k := mode{keyOf(row), q.Layers}
		if ahead[k] == nil {
			ahead[k] = &sums{}
			order = append(order, k)
		}
		if device := known(q.DeviceForwardUS); device > 0 {
			a := ahead[k]
			a.steps, a.device, a.rows = a.steps+row.TimeUS*float64(q.Steps), a.device+device*float64(q.Steps), append(a.rows, row)
		}
	}
	found.report(r, "the device's work in them")
	for _, k := range order {
		if a := ahead[k]; len(a.rows) >= sharedRows && a.steps < asyncDevice*a.device {
			r.rows(a.rows, "tp%d %s: its steps take %.3g times what the device works in them, all together", k.tp, k.layer, a.steps/a.device)
		}
	}
}

// checkStepKernels holds steps against the other tables.
func checkStepKernels(s *subject, r *reporter) {
	if s.arch == nil || s.model == nil || len(s.steps(tidy.CaseStep))+len(s.steps(tidy.CaseForward)) == 0 {
		return
	}
	tables := &perfio.Bundle{Meta: s.Meta}
	for _, tp := range s.TPs {
		tables.TPs = append(tables.TPs, perfio.TP{Degree: tp.Degree, Dense: tp.Dense, PerSequence: tp.PerSequence, Attention: tp.Attention, MoE: tp.MoE, Collectives: tp.Collectives})
	}
	table, err := traceloader.New(tables, traceloader.Options{Architecture: s.arch, Model: s.model})
	if err != nil {
		return // other rules say what is wrong with the tables
	}
	walks := map[int]traceloader.Walk{}
	for _, degree := range table.TPs() {
		if walk, err := table.Walk(degree); err == nil { // else layers are missing, which missing-layer finds
			walks[degree] = walk
		}
	}
	for _, one := range []struct {
		of, than string
		limit    float64
		head     bool
	}{{tidy.CaseStep, "the sum of their layers", stepKernels, true}, {tidy.CaseForward, "the sum of their forwards' layers", forwardKernels, false}} {
		var found short
		var step traceloader.Step
		for _, row := range s.steps(one.of) {
			if one.of == tidy.CaseStep && async(row.Layer) {
				continue
			}
			walk, ok := walks[row.TP]
			if !ok || !walk.Step(stepBatch(row.StepRow), &step) {
				continue
			}
			us := float64(step.PrologueNS+int64(row.StepRow.Layers)*step.BlockNS) / 1e3
			if one.head {
				us += float64(step.HeadNS) / 1e3
			}
			if row.TimeUS < one.limit*us {
				found.add(row, us)
			}
		}
		found.report(r, one.than)
	}
}

// stepBatch is a step's batch, no more than it: the attention of several prefills,
// of which only the sum is known, is left out.
func stepBatch(r *perfio.StepRow) traceloader.Batch {
	b := traceloader.Batch{
		PrefillChunk: r.PrefillChunk, KVPrefill: r.KVPrefill, NDecode: r.NDecode,
		KVDecodeMean: int(r.KVDecodeMean), KVDecodeMax: int(r.KVDecodeMean), KVDecodeMin: int(r.KVDecodeMean),
		Tokens: r.PrefillChunk + r.NDecode, Sequences: r.NDecode + r.NPrefill,
	}
	if r.NPrefill > 1 {
		b.PrefillChunk, b.KVPrefill = 0, 0
	}
	return b
}

func checkStepParts(s *subject, r *reporter) {
	var found []*tidy.Row
	worst := 0.0
	for _, row := range s.steps(tidy.CaseStep) {
		q := row.StepRow
		if q.Steps > 1 {
			continue // medians do not add up
		}
		sum := q.ScheduleUS + q.DispatchUS + q.PrepareUS + q.LaunchUS + q.AfterUS + q.SampleUS + q.WaitUS + q.UpdateUS + q.ReturnUS + q.BetweenUS
		if off := math.Abs(sum - row.TimeUS); off > stepParts*row.TimeUS+partUS { // NaN, not all known, is not
			if found = append(found, row); off > worst {
				worst = off
				found[0], found[len(found)-1] = found[len(found)-1], found[0]
			}
		}
	}
	if len(found) > 0 {
		r.rows(found, "tp%d: the parts of %d steps do not make up the whole; of %s, line %d, %.6g us are over or missing of %.6g",
			found[0].TP, len(found), found[0].Layer, found[0].Line, worst, found[0].TimeUS)
	}
}

func checkStepMeta(s *subject, r *reporter) {
	for i := range s.TPs {
		tp := &s.TPs[i]
		for _, mode := range perfio.StepModes() {
			s.checkStepMode(r, tp, mode)
		}
	}
}

func (s *subject) checkStepMode(r *reporter, tp *perfio.TP, mode string) {
	path := []string{"steps", "per_tp", strconv.Itoa(tp.Degree), mode}
	block := s.Meta.Get(path...)
	about := fmt.Sprintf("tp%d %s", tp.Degree, mode)
	var depths, padded []int
	count, graphs := 0, 0
	for j := range tp.Steps {
		q := &tp.Steps[j]
		if q.Mode != mode {
			continue
		}
		count++
		if !slices.Contains(depths, q.Layers) {
			depths = append(depths, q.Layers)
		}
		if q.Graph == perfio.GraphFull || q.Graph == perfio.GraphPiecewise {
			graphs++
			padded = append(padded, q.PaddedTokens)
		}
	}
	again := r.again(tp.Degree, "step", nil)
	switch {
	case block == nil && count > 0:
		r.place(perfio.MetaFile, 0, again, "%s: step.csv has %d rows, meta.yaml nothing of how the engine ran them (steps.per_tp.%d.%s)", about, count, tp.Degree, mode)
		return
	case block == nil:
		return
	}
	at := func(key string) []string { return append(slices.Clone(path), key) }
	wrong := func(format string, args ...any) {
		r.place(perfio.MetaFile, block.Line, again, about+": "+format, args...)
	}
	if n := s.Meta.Get(at("rows")...); n != nil && n.Value != strconv.Itoa(count) {
		wrong("meta.yaml says %s rows, step.csv has %d", n.Value, count)
	}
	if n := s.Meta.Get(at("layers")...); n != nil {
		for _, depth := range depths {
			if !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return c.Value == strconv.Itoa(depth) }) {
				wrong("step.csv has rows of %d layers, meta.yaml does not name them", depth)
			}
		}
	}
	if scheduling := s.Meta.Text(at("async_scheduling")...); scheduling != "" && scheduling != strconv.FormatBool(async(mode)) {
		wrong("the engine's async_scheduling was %s", scheduling)
	}
	sizes := s.Meta.CaptureSizes(tp.Degree, mode)
	other := slices.IndexFunc(padded, func(n int) bool { return !slices.Contains(sizes, n) })
	switch {
	case graphs > 0 && sizes == nil:
		wrong("%d rows ran as graphs, meta.yaml does not say of which sizes", graphs)
	case other >= 0:
		wrong("a graph of %d tokens ran, of which none was captured", padded[other])
	}
}
