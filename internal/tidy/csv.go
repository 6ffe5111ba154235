package tidy

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"

	"github.com/layerprof/layerprof/perfio"
)

// Columns are those of the CSV, in order. A column that a row's table does not
// have is empty; 0 is a value.
func Columns() []string {
	return []string{"hardware", "model", "variant", "origin", "tp", "table", "layer", "regime",
		"tokens", "sequences", "activated_experts", "prefill_chunk", "kv_prefill", "n_decode", "kv_decode",
		"case", "nb", "kvs", "kv_big", "collective", "bytes", "time_us", "runs", "file", "line"}
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

// WriteCSV writes one line for each time of the bundle, without a header. time_us
// stands as in the bundle: divide it by runs (empty: not known) for one run.
func WriteCSV(w io.Writer, b *perfio.Bundle) error {
	c := csv.NewWriter(w)
	for _, r := range Rows(b) {
		if err := c.Write(r.record(b.Meta)); err != nil {
			return err
		}
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
	attention := r.Table == "attention" || r.Table == "skew"
	skew := r.Table == "skew"
	return []string{m.Hardware(), m.Model(), m.Variant(), m.Origin(), strconv.Itoa(r.TP), r.Table, r.Layer, r.regime(),
		number(r.Table == "dense" || r.Table == "moe" || r.Table == "collectives", r.Tokens), number(r.Table == "per_sequence", r.Sequences), number(r.Table == "moe", r.ActivatedExperts),
		number(attention, r.PrefillChunk), number(attention, r.KVPrefill), number(attention, r.NDecode), number(attention && r.Case != CaseSkew, r.KVDecode),
		r.Case, number(skew, r.NB), number(skew, r.KVS), number(skew, r.KVBig),
		r.Collective, number(r.Table == "collectives", r.Bytes),
		strconv.FormatFloat(r.TimeUS, 'g', -1, 64), number(r.Runs > 0, r.Runs), fmt.Sprintf("tp%d/%s.csv", r.TP, r.Table), strconv.Itoa(r.Line)}
}

// regime of an attention batch: decode, prefill or mixed.
func (r *Row) regime() string {
	switch {
	case r.Table != "attention" && r.Table != "skew":
		return ""
	case r.PrefillChunk == 0:
		return "decode"
	case r.NDecode == 0:
		return "prefill"
	}
	return "mixed"
}
