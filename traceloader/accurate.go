package traceloader

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/layerprof/layerprof/internal/attnmodel"
	"github.com/layerprof/layerprof/internal/hardware"
	"github.com/layerprof/layerprof/internal/sweep"
	"github.com/layerprof/layerprof/perfio"
)

// applyAccurate replaces the parity rules behind the handles of t.
func applyAccurate(t *Table, b *perfio.Bundle, o *Options) {
	stored, warning := storedCalibration(b, o)
	if warning != "" {
		t.warnings = append(t.warnings, warning)
	}
	// Each folder is calibrated by itself.
	found, warnings := make([]TPCalibration, len(t.tps)), make([][]string, len(t.tps))
	var done sync.WaitGroup
	for i := range t.tps {
		done.Go(func() { found[i], warnings[i] = applyAccurateTP(t, b, &t.tps[i], stored) })
	}
	done.Wait()
	for _, w := range warnings {
		t.warnings = append(t.warnings, w...)
	}
	t.calibration = &Calibration{Version: calibrationVersion, TPs: found}
	for _, c := range found {
		if c.Attention == nil {
			continue
		}
		if w := c.Attention.Contradiction(); w != "" {
			t.warnings = append(t.warnings, fmt.Sprintf("tp%d: %s", c.TP, w))
		}
	}
}

// applyAccurateTP calibrates a tp folder. Warnings say what of it, or of the
// stored calibration, is not used.
func applyAccurateTP(t *Table, b *perfio.Bundle, f *tpTable, stored *Calibration) (found TPCalibration, warnings []string) {
	for _, curves := range []map[string]*curve{f.dense, f.perSequence} {
		for _, name := range slices.Sorted(maps.Keys(curves)) {
			curves[name] = accurateCurve(curves[name])
		}
	}
	found.TP = f.degree
	if f.attention == nil {
		return found, nil
	}
	a, warnings := newAccurateAttention(t, b, f, b.TP(f.degree), stored)
	if a != nil {
		f.attention, found = a, a.calibration()
	}
	return found, warnings
}

// attentionConfig is what a tp folder's attention is predicted from, but for
// the straight lines. The warning, if any, says why skew.csv is not used.
func attentionConfig(t *Table, b *perfio.Bundle, rows perfio.TP) (c *attnmodel.Config, warning string) {
	var backend string
	if b.Meta != nil && b.Meta.Root != nil {
		backend = b.Meta.AttentionBackend()
	}
	if len(rows.Skew) > 0 {
		ratios := sweep.Compare(b.Meta, rows.Attention, rows.Skew)
		if !ratios.Known() {
			warning = fmt.Sprintf("tp%d: %s: the accurate rules do not use it", rows.Degree, ratios)
		}
		rows.Skew = ratios.Divide(rows.Skew)
	}
	return &attnmodel.Config{
		Geometry: geometryOf(t, b.Meta, rows.Degree), Kernel: kernelOf(backend), Samples: attentionSamples(&rows, prefillFirst(b.Meta)),
	}, warning
}

// geometryOf says how many heads one rank has and how many multiprocessors the
// device. Zeros are unknown.
func geometryOf(t *Table, m *perfio.Meta, degree int) attnmodel.Geometry {
	g := attnmodel.Geometry{}
	if m != nil && m.Root != nil {
		if g.SMs = m.SMCount(); g.SMs <= 0 {
			g.SMs = hardware.SMCount(m.GPU())
		}
		if g.SMs <= 0 {
			g.SMs = hardware.SMCount(m.Hardware())
		}
	}
	g.ByteCache = m != nil && m.Root != nil && strings.HasPrefix(m.Text("engine_effective", "kv_cache_dtype"), "fp8")
	heads, kv := 0, 0
	switch {
	case t.model != nil:
		heads, kv = t.model.NumAttentionHeads, t.model.NumKeyValueHeads
	case m != nil && m.Root != nil:
		// The overrides are those of the last degree that was booted.
		last := 1
		for _, d := range m.TPDegrees() {
			last = max(last, d)
		}
		heads = last * m.Int("engine_effective", "hf_overrides", "num_attention_heads")
		kv = last * m.Int("engine_effective", "hf_overrides", "num_key_value_heads")
	}
	if degree < 1 || heads%degree != 0 {
		return g
	}
	// Below one key head a rank, engines replicate it.
	g.QueryHeads, g.KVHeads = heads/degree, max(kv/degree, min(kv, 1))
	return g
}

// kernelOf reads the engine's name for its attention backend.
func kernelOf(backend string) attnmodel.Kernel {
	s := strings.ToLower(strings.NewReplacer(" ", "", "_", "", "-", "").Replace(backend))
	switch {
	case strings.Contains(s, "flashattention3"), strings.Contains(s, "flashattn3"), strings.HasSuffix(s, "fa3"):
		return attnmodel.KernelFA3
	case strings.Contains(s, "flashattention2"), strings.Contains(s, "flashattn2"), strings.HasSuffix(s, "fa2"):
		return attnmodel.KernelFA2
	}
	return attnmodel.Unknown
}

// prefillFirst is the order in which the bundle's mixed batches ran: what its
// meta.yaml records, and the prefill first where it records nothing.
func prefillFirst(m *perfio.Meta) bool { return m == nil || m.Root == nil || m.PrefillFirst() }

// attentionSamples are all batches of a tp folder whose attention was
// measured. The times of rows.Skew must be in the unit of attention.csv.
func attentionSamples(rows *perfio.TP, first bool) []attnmodel.Sample {
	out := make([]attnmodel.Sample, 0, len(rows.Attention)+2*len(rows.Skew)+len(rows.Batches))
	// All runs of the grid stand in one array.
	runs := make([]attnmodel.Run, 0, 2*len(rows.Attention)+5*len(rows.Skew))
	grid := func(pc, kp, n, kd int, us float64, skew bool) {
		at := len(runs)
		runs = gridRuns(runs, pc, kp, n, kd, n, kd, first)
		out = append(out, attnmodel.Sample{Runs: runs[at:len(runs):len(runs)], TimeUS: us, Skew: skew})
	}
	for _, r := range rows.Attention {
		grid(r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode, r.TimeUS, false)
	}
	for _, r := range rows.Skew {
		at := len(runs)
		runs = gridRuns(runs, r.PC, r.KP, r.NB, r.KVBig, r.N, r.KVS, first)
		out = append(out, attnmodel.Sample{Runs: runs[at:len(runs):len(runs)], TimeUS: r.TSkewUS, Skew: true})
	}
	for _, r := range rows.Batches {
		us := r.MeasuredUS["attention"]
		if !(us > 0) || !validRequests(r.Requests) {
			continue
		}
		out = append(out, attnmodel.Sample{Runs: attnmodel.AppendRuns(nil, r.Requests), TimeUS: us, Weight: batchWeight})
	}
	return out
}

// batchWeight of a random batch in a fit: such batches are what lookups are
// for, and few.
const batchWeight = 2

// gridRuns appends a chunk, unless pc is 0, and n decodes, of which the first
// nb have kb tokens of history and the others ks. The rows must be apart from
// those that dst holds already.
func gridRuns(dst []attnmodel.Run, pc, kp, nb, kb, n, ks int, first bool) []attnmodel.Run {
	chunk := attnmodel.Run{New: pc, History: max(kp, 0), Count: 1}
	if first && pc > 0 {
		dst = append(dst, chunk)
	}
	if nb > 0 {
		dst = append(dst, attnmodel.Run{New: 1, History: max(kb, 0), Count: nb})
	}
	if n > nb {
		dst = append(dst, attnmodel.Run{New: 1, History: max(ks, 0), Count: n - nb})
	}
	if !first && pc > 0 {
		dst = append(dst, chunk)
	}
	return dst
}
