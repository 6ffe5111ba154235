// Package tidy lists a bundle's measurements in one shape: a row a time, with
// the file's line, whatever table it stands in.
package tidy

import (
	"fmt"
	"strings"

	"github.com/layerprof/layerprof/perfio"
)

// Case names the batches of a row of skew.csv.
const (
	CaseMean = "mean" // all decodes at kv_mean
	CaseMax  = "max"  // all decodes at kv_big
	CaseSkew = "skew" // nb decodes at kv_big, the others at kvs
)

// Key says what was measured. Fields that a table does not have are 0 or "".
type Key struct {
	TP    int
	Table string // dense, per_sequence, attention, moe, skew, collectives
	Layer string // attention and moe in the tables without the column

	Tokens           int // dense, moe, collectives
	Sequences        int // per_sequence
	PrefillChunk     int // attention, skew
	KVPrefill        int
	NDecode          int
	KVDecode         int // 0 in a skew batch whose decodes differ
	ActivatedExperts int // moe

	Case       string // skew
	NB         int    // skew: long decodes
	KVS, KVBig int    // skew: history of the short and of the long ones

	Collective string // collectives: all_reduce, …; the time is the transfer
	Bytes      int    // collectives
}

// Row is one time of a bundle.
type Row struct {
	Key
	TimeUS float64
	// Runs is how many timed runs TimeUS is the sum of: 1 for a mean, 0 where
	// the bundle does not say how many.
	Runs int
	Line int // in File, from 1
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
// the lines would not be those of the file), in the order of the files.
func Rows(b *perfio.Bundle) []Row {
	n := 0
	for _, tp := range b.TPs {
		n += len(tp.Dense) + len(tp.PerSequence) + len(tp.Attention) + len(tp.MoE) + 3*len(tp.Skew)
	}
	out := make([]Row, 0, n) // a million rows are not to be copied as they come
	for i := range b.TPs {
		out = appendTables(out, &b.TPs[i])
		out = appendSkew(out, &b.TPs[i], b.Meta)
		for j, r := range b.TPs[i].Collectives {
			key := Key{TP: b.TPs[i].Degree, Table: "collectives", Layer: r.Layer, Tokens: r.Tokens, Collective: r.Collective, Bytes: r.Bytes}
			out = append(out, Row{key, r.TimeUS, 1, j + 2})
		}
	}
	return out
}

func appendTables(out []Row, tp *perfio.TP) []Row {
	for i, r := range tp.Dense {
		out = append(out, Row{Key{TP: tp.Degree, Table: "dense", Layer: r.Layer, Tokens: r.Tokens}, r.TimeUS, 1, i + 2})
	}
	for i, r := range tp.PerSequence {
		out = append(out, Row{Key{TP: tp.Degree, Table: "per_sequence", Layer: r.Layer, Sequences: r.Sequences}, r.TimeUS, 1, i + 2})
	}
	for i, r := range tp.Attention {
		out = append(out, Row{Key{TP: tp.Degree, Table: "attention", Layer: "attention", PrefillChunk: r.PrefillChunk,
			KVPrefill: r.KVPrefill, NDecode: r.NDecode, KVDecode: r.KVDecode}, r.TimeUS, 1, i + 2})
	}
	for i, r := range tp.MoE {
		out = append(out, Row{Key{TP: tp.Degree, Table: "moe", Layer: "moe", Tokens: r.Tokens, ActivatedExperts: r.ActivatedExperts}, r.TimeUS, 1, i + 2})
	}
	return out
}

func appendSkew(out []Row, tp *perfio.TP, meta *perfio.Meta) []Row {
	runs := 1
	if meta.SkewStatistic() == perfio.SkewSum {
		runs = meta.MeasurementIterations()
	}
	for i, r := range tp.Skew {
		key := Key{TP: tp.Degree, Table: "skew", Layer: "attention", PrefillChunk: r.PC, KVPrefill: r.KP,
			NDecode: r.N, NB: r.NB, KVS: r.KVS, KVBig: r.KVBig}
		for _, one := range []struct {
			name  string
			kv    int
			times float64
		}{{CaseMean, r.KVMean, r.TMeanUS}, {CaseMax, r.KVBig, r.TMaxUS}, {CaseSkew, 0, r.TSkewUS}} {
			key.Case, key.KVDecode = one.name, one.kv
			out = append(out, Row{key, one.times, runs, i + 2})
		}
	}
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
