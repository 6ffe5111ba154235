package main

import (
	"fmt"

	"github.com/layerprof/layerprof/traceloader"
)

// resolver answers lookups by name; it looks handles up once.
type resolver struct {
	table     *traceloader.Table
	curves    map[curveKey]traceloader.Curve
	attention map[int]traceloader.Attention
}

type curveKey struct {
	lookup, layer string
	tp            int
}

func newResolver(table *traceloader.Table) *resolver {
	return &resolver{table, map[curveKey]traceloader.Curve{}, map[int]traceloader.Attention{}}
}

func (r *resolver) curve(row lookupRow) (traceloader.Curve, error) {
	key := curveKey{row.Lookup, row.Layer, row.TP}
	if c, ok := r.curves[key]; ok {
		return c, nil
	}
	find := r.table.Dense
	if row.Lookup == "per_sequence" {
		find = r.table.PerSequence
	}
	c, ok := find(row.TP, row.Layer)
	if !ok {
		return c, fmt.Errorf("layer: found %q, which has no %s rows at tp%d", row.Layer, row.Lookup, row.TP)
	}
	r.curves[key] = c
	return c, nil
}

func (r *resolver) attentionAt(tp int) (traceloader.Attention, error) {
	if a, ok := r.attention[tp]; ok {
		return a, nil
	}
	a, ok := r.table.Attention(tp)
	if !ok {
		return a, fmt.Errorf("tp: found %d, which has no attention rows", tp)
	}
	r.attention[tp] = a
	return a, nil
}

// latency answers a row; 0 where the table refuses.
func (r *resolver) latency(row lookupRow) (int64, error) {
	a := row.Args
	switch row.Lookup {
	case "dense", "per_sequence":
		c, err := r.curve(row)
		if err != nil {
			return 0, err
		}
		ns, _ := c.LatencyNS(a[0])
		return ns, nil
	case "moe":
		m, ok := r.table.MoE()
		if !ok {
			return 0, fmt.Errorf("lookup: found moe, the bundle has no moe rows")
		}
		ns, _ := m.LatencyNS(a[0], a[1])
		return ns, nil
	}
	h, err := r.attentionAt(row.TP)
	if err != nil {
		return 0, err
	}
	if row.Lookup == "attention" {
		ns, _ := h.LatencyNS(a[0], a[1], a[2], a[3])
		return ns, nil
	}
	ns, _ := h.SkewLatencyNS(a[0], a[1], a[2], a[3], a[4], a[5])
	return ns, nil
}

// explain is latency that also says how the answer was found.
func (r *resolver) explain(row lookupRow) (int64, traceloader.Answer, error) {
	a := row.Args
	var ns int64
	var answer traceloader.Answer
	switch row.Lookup {
	case "dense", "per_sequence":
		c, err := r.curve(row)
		if err != nil {
			return 0, answer, err
		}
		ns, answer = c.Explain(a[0])
	case "moe":
		m, ok := r.table.MoE()
		if !ok {
			return 0, answer, fmt.Errorf("lookup: found moe, the bundle has no moe rows")
		}
		ns, answer = m.Explain(a[0], a[1])
	default:
		h, err := r.attentionAt(row.TP)
		if err != nil {
			return 0, answer, err
		}
		if row.Lookup == "attention" {
			ns, answer = h.Explain(a[0], a[1], a[2], a[3])
		} else {
			ns, answer = h.ExplainSkew(a[0], a[1], a[2], a[3], a[4], a[5])
		}
	}
	return ns, answer, nil
}
