package traceloader

import "github.com/layerprof/layerprof/perfio"

// Collective returns the handle to what the ranks of a tensor-parallel engine
// exchange at the end of one call of a layer: the transfer alone, as between
// ranks that come at the same time, over the tokens of a step (of a
// per-sequence layer: its sequences). It is false where nothing was measured,
// as at degrees that are emulated. The layer's own latency has none of it, and
// Walk.Step adds it.
func (t *Table) Collective(tp int, layer string) (Curve, bool) {
	f := t.tp(tp)
	if f == nil {
		return Curve{}, false
	}
	c, ok := f.collectives[layer]
	return Curve{c}, ok
}

// collectiveSums are the rows by layer and tokens: all of a layer's collectives
// follow its call.
func collectiveSums(rows []perfio.CollectiveRow) []perfio.DenseRow {
	type key struct {
		layer  string
		tokens int
	}
	var out []perfio.DenseRow
	at := make(map[key]int)
	for i := range rows {
		r := &rows[i]
		k := key{r.Layer, r.Tokens}
		n, seen := at[k]
		if !seen {
			n = len(out)
			at[k] = n
			out = append(out, perfio.DenseRow{Layer: r.Layer, Tokens: r.Tokens})
		}
		out[n].TimeUS += float64(r.Calls) * r.TimeUS
	}
	return out
}
