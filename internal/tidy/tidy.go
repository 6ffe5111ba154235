// Package tidy lists a bundle's measurements in one shape: a row a time, with
// the file's line, whatever table it stands in.
package tidy

import (
	"fmt"
	"math"
	"strings"

	"github.com/layerprof/layerprof/perfio"
)

// Case names the batches of a row of skew.csv.
const (
	CaseMean = "mean" // all decodes at kv_mean
	CaseMax  = "max"  // all decodes at kv_big
	CaseSkew = "skew" // nb decodes at kv_big, the others at kvs
)

// Cases of a row of step.csv that say most: the whole step, and what the device
// works in it. The others are the host's parts.
const (
	CaseStep    = "step_us"
	CaseForward = "device_forward_us"
)

// Key says what was measured. Fields that a table does not have are 0 or "".
type Key struct {
	TP    int
	Table string // dense, per_sequence, attention, moe, skew, collectives, step
	Layer string // attention and moe in the tables without the column; of step the mode

	Tokens           int // dense, moe, collectives
	Sequences        int // per_sequence
	PrefillChunk     int // attention, skew, step
	KVPrefill        int
	NDecode          int
	KVDecode         int // 0 in a skew batch whose decodes differ; of step the rounded mean
	ActivatedExperts int // moe

	Case       string // skew; of step the time's column
	NB         int    // skew: long decodes
	KVS, KVBig int    // skew: history of the short and of the long ones; of step the shortest and the longest

	Collective string // collectives: all_reduce, …; the time is the transfer
	Bytes      int    // collectives

	Step StepKey // step
}

// StepKey is what else a whole step's batch is told apart by. What the engine
// makes of it (padding, graphs) is not: two engines may differ in that.
// Its fields are small, since each key of any table has them.
type StepKey struct {
	Depth              int32 // decoder blocks that were booted
	NPrefill           int32
	Admitted, Finished int32
	Repeat             int32 // of the rows with this very key, from 0
}

// Row is one time of a bundle.
type Row struct {
	Key
	TimeUS float64
	// Runs is how many timed runs TimeUS is the sum of: 1 for a mean, 0 where
	// the bundle does not say how many.
	Runs int
	Line int // in File, from 1; empty lines do not count
	// StepRow is the whole row of step.csv, nil of other tables.
	StepRow *perfio.StepRow
}

// File is the row's file in the bundle's folder.
func (r *Row) File() string { return fmt.Sprintf("tp%d/%s.csv", r.TP, r.Table) }

// PerCallUS is the time of one run, 0 where that is not known.
func (r *Row) PerCallUS() float64 {
	if r.Runs == 0 {
		return 0
	}
	return r.TimeUS / float64(r.Runs)
}

// Rows lists the tables of a bundle that was read strictly (not Lenient: then
// the lines would not be those of the file), in the order of the files; of
// step.csv the times CaseStep and CaseForward.
func Rows(b *perfio.Bundle) []Row {
	n := 0
	for _, tp := range b.TPs {
		n += len(tp.Dense) + len(tp.PerSequence) + len(tp.Attention) + len(tp.MoE) + 3*len(tp.Skew) + len(tp.Collectives) + 2*len(tp.Steps)
	}
	out := make([]Row, 0, n) // a million rows are not to be copied as they come
	for i := range b.TPs {
		out = appendTables(out, &b.TPs[i])
		out = appendSkew(out, &b.TPs[i], b.Meta)
		for j, r := range b.TPs[i].Collectives {
			key := Key{TP: b.TPs[i].Degree, Table: "collectives", Layer: r.Layer, Tokens: r.Tokens, Collective: r.Collective, Bytes: r.Bytes}
			out = append(out, Row{Key: key, TimeUS: r.TimeUS, Runs: 1, Line: j + 2})
		}
		out = appendSteps(out, &b.TPs[i])
	}
	return out
}

func appendTables(out []Row, tp *perfio.TP) []Row {
	for i, r := range tp.Dense {
		out = append(out, Row{Key: Key{TP: tp.Degree, Table: "dense", Layer: r.Layer, Tokens: r.Tokens}, TimeUS: r.TimeUS, Runs: 1, Line: i + 2})
	}
	for i, r := range tp.PerSequence {
		out = append(out, Row{Key: Key{TP: tp.Degree, Table: "per_sequence", Layer: r.Layer, Sequences: r.Sequences}, TimeUS: r.TimeUS, Runs: 1, Line: i + 2})
	}
	for i, r := range tp.Attention {
		out = append(out, Row{Key: Key{TP: tp.Degree, Table: "attention", Layer: "attention", PrefillChunk: r.PrefillChunk,
			KVPrefill: r.KVPrefill, NDecode: r.NDecode, KVDecode: r.KVDecode}, TimeUS: r.TimeUS, Runs: 1, Line: i + 2})
	}
	for i, r := range tp.MoE {
		out = append(out, Row{Key: Key{TP: tp.Degree, Table: "moe", Layer: "moe", Tokens: r.Tokens, ActivatedExperts: r.ActivatedExperts}, TimeUS: r.TimeUS, Runs: 1, Line: i + 2})
	}
	return out
}

func appendSkew(out []Row, tp *perfio.TP, meta *perfio.Meta) []Row {
	runs := meta.SkewRuns()
	for i, r := range tp.Skew {
		key := Key{TP: tp.Degree, Table: "skew", Layer: "attention", PrefillChunk: r.PC, KVPrefill: r.KP,
			NDecode: r.N, NB: r.NB, KVS: r.KVS, KVBig: r.KVBig}
		for _, one := range []struct {
			name  string
			kv    int
			times float64
		}{{CaseMean, r.KVMean, r.TMeanUS}, {CaseMax, r.KVBig, r.TMaxUS}, {CaseSkew, 0, r.TSkewUS}} {
			key.Case, key.KVDecode = one.name, one.kv
			out = append(out, Row{Key: key, TimeUS: one.times, Runs: runs, Line: i + 2})
		}
	}
	return out
}

// StepKeyOf is what a row of step.csv is known by at a degree, but for the time
// and for Repeat.
func StepKeyOf(degree int, r *perfio.StepRow) Key {
	return Key{TP: degree, Table: "step", Layer: r.Mode, PrefillChunk: r.PrefillChunk, KVPrefill: r.KVPrefill, NDecode: r.NDecode,
		KVDecode: int(math.Round(r.KVDecodeMean)), KVS: r.KVDecodeMin, KVBig: r.KVDecodeMax,
		Step: StepKey{Depth: int32(r.Layers), NPrefill: int32(r.NPrefill), Admitted: int32(r.Admitted), Finished: int32(r.Finished)}} // all at most perfio.MaxKey
}

// eachStep hands over all times of step.csv, row by row.
func eachStep(tp *perfio.TP, do func(Row)) {
	seen := map[Key]int32{}
	for i := range tp.Steps {
		r := &tp.Steps[i]
		key := StepKeyOf(tp.Degree, r)
		repeat := seen[key]
		seen[key]++
		key.Step.Repeat = repeat
		for name, us := range r.Times() {
			if !math.IsNaN(us) {
				key.Case = name
				do(Row{Key: key, TimeUS: us, Runs: 1, Line: i + 2, StepRow: r})
			}
		}
	}
}

// appendSteps lists the step itself and the device's forward in it: the host's
// parts, up to thirteen more, move among each other and are a few microseconds
// each.
func appendSteps(out []Row, tp *perfio.TP) []Row {
	eachStep(tp, func(r Row) {
		if r.Case == CaseStep || r.Case == CaseForward {
			out = append(out, r)
		}
	})
	return out
}

// Shape is the key without degree, table and layer, for people:
// "prefill_chunk 16, kv_prefill 0, n_decode 4, kv_decode 512".
func (k Key) Shape() string {
	var parts []string
	add := func(name string, value int) { parts = append(parts, fmt.Sprintf("%s %d", name, value)) }
	switch k.Table {
	case "dense":
		add("tokens", k.Tokens)
	case "per_sequence":
		add("sequences", k.Sequences)
	case "moe":
		add("tokens", k.Tokens)
		add("activated_experts", k.ActivatedExperts)
	case "collectives":
		parts = append(parts, k.Collective)
		add("tokens", k.Tokens)
		add("bytes", k.Bytes)
	default:
		if k.Table == "step" {
			parts = append(parts, k.Case)
		}
		if k.PrefillChunk > 0 {
			add("prefill_chunk", k.PrefillChunk)
			add("kv_prefill", k.KVPrefill)
		}
		if k.NDecode > 0 {
			add("n_decode", k.NDecode)
		}
		switch {
		case k.Case == CaseSkew:
			add("nb", k.NB)
			add("kvs", k.KVS)
			add("kv_big", k.KVBig)
		case k.NDecode > 0:
			add("kv_decode", k.KVDecode)
		}
	}
	return strings.Join(parts, ", ")
}

// Regime groups keys whose times go by the same thing, for summaries.
func (k Key) Regime() string {
	split := func(name string, value int, edges ...int) string {
		low := 0
		for _, edge := range edges {
			if value <= edge {
				if low == 0 {
					return fmt.Sprintf("%s ≤ %d", name, edge)
				}
				return fmt.Sprintf("%s %d…%d", name, low+1, edge)
			}
			low = edge
		}
		return fmt.Sprintf("%s > %d", name, low)
	}
	switch {
	case k.Table == "step":
		kind := k.Kind()
		if kind == perfio.KindDecode {
			kind += ", " + split("n", k.NDecode, 16, 64)
		}
		return fmt.Sprintf("%s, %d layers, %s", strings.TrimSuffix(k.Case, "_us"), k.Step.Depth, kind)
	case k.Table == "dense" || k.Table == "collectives":
		return split("tokens", k.Tokens, 64, 512)
	case k.Table == "per_sequence":
		return split("sequences", k.Sequences, 32)
	case k.Table == "moe":
		return split("tokens", k.Tokens, 64)
	case k.PrefillChunk == 0 && k.Table == "skew":
		return "decode"
	case k.PrefillChunk == 0:
		return "decode, " + split("n", k.NDecode, 16) + ", " + split("kv", k.KVDecode, 1024)
	case k.NDecode == 0:
		return "prefill, " + split("chunk", k.PrefillChunk, 256)
	case k.Table == "skew":
		return "mixed"
	default:
		return "mixed, " + split("chunk", k.PrefillChunk, 256)
	}
}

// Kind of an attention batch or a step: decode, prefill or mixed.
func (k Key) Kind() string {
	switch {
	case k.PrefillChunk == 0:
		return perfio.KindDecode
	case k.NDecode == 0:
		return perfio.KindPrefill
	}
	return perfio.KindMixed
}
