package tidy

import (
	"encoding/csv"
	"io"
	"strconv"

	"github.com/layerprof/layerprof/perfio"
)

// Columns are those of the CSV, in order. A column that a row's table does not
// have is empty; 0 is a value.
func Columns() []string {
	return []string{"hardware", "model", "variant", "origin", "tp", "table", "layer", "regime",
		"tokens", "sequences", "activated_experts", "prefill_chunk", "kv_prefill", "n_decode", "kv_decode",
		"case", "nb", "kvs", "kv_big", "collective", "bytes",
		"depth", "graph", "padded_tokens", "n_prefill", "admitted", "finished", "steps", "time_us", "runs", "file", "line"}
}

// WriteHeader writes the line of Columns.
func WriteHeader(w io.Writer) error {
	c := csv.NewWriter(w)
	if err := c.Write(Columns()); err != nil {
		return err
	}
	c.Flush()
	return c.Error()
}

// WriteCSV writes one line for each time of the bundle, whole steps last and with
// all of their parts, without a header. time_us stands as in the bundle: divide it
// by runs (empty: not known) for one run.
func WriteCSV(w io.Writer, b *perfio.Bundle) error {
	c := csv.NewWriter(w)
	write := func(r Row) { _ = c.Write(r.record(b.Meta)) } // Error has the first
	for _, r := range Rows(b) {
		if r.Table != "step" {
			write(r)
		}
	}
	for i := range b.TPs {
		eachStep(&b.TPs[i], write)
	}
	c.Flush()
	return c.Error()
}

func (r *Row) record(m *perfio.Meta) []string {
	number := func(has bool, v int) string {
		if !has {
			return ""
		}
		return strconv.Itoa(v)
	}
	skew, step := r.Table == "skew", r.Table == "step"
	batch := skew || step || r.Table == "attention"
	kind, kvDecode := "", number(batch && r.Case != CaseSkew, r.KVDecode)
	if batch {
		kind = r.Kind()
	}
	var graph string
	var padded, behind int
	if step {
		graph, padded, behind = r.StepRow.Graph, r.StepRow.PaddedTokens, r.StepRow.Steps
		kvDecode = strconv.FormatFloat(r.StepRow.KVDecodeMean, 'f', -1, 64)
	}
	return []string{m.Hardware(), m.Model(), m.Variant(), m.Origin(), strconv.Itoa(r.TP), r.Table, r.Layer, kind,
		number(r.Table == "dense" || r.Table == "moe" || r.Table == "collectives", r.Tokens), number(r.Table == "per_sequence", r.Sequences), number(r.Table == "moe", r.ActivatedExperts),
		number(batch, r.PrefillChunk), number(batch, r.KVPrefill), number(batch, r.NDecode), kvDecode,
		r.Case, number(skew, r.NB), number(skew || step, r.KVS), number(skew || step, r.KVBig),
		r.Collective, number(r.Table == "collectives", r.Bytes),
		number(step, int(r.Step.Depth)), graph, number(step, padded), number(step, int(r.Step.NPrefill)), number(step, int(r.Step.Admitted)), number(step, int(r.Step.Finished)), number(step, behind),
		strconv.FormatFloat(r.TimeUS, 'g', -1, 64), number(r.Runs > 0, r.Runs), r.File(), strconv.Itoa(r.Line)}
}
