package replay

import (
	"fmt"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/traceloader"
)

// layerTime is one layer's time in a shot.
type layerTime struct {
	layer   string
	timeUS  float64
	kernels map[string]float64
}

// answer looks the wanted layers up; nil wants every layer that the source has
// for the batch. The error names what is absent.
func (e *engine) answer(shot *profile.Shot, wanted []string) ([]layerTime, error) {
	entries := e.spec.Architecture.Catalog
	var row *perfio.BatchRow
	switch shot.Category {
	case profile.Batches, profile.Validation, profile.Step:
		row = e.tables.batches[requestsKey(shot.Requests())]
	}
	var times []layerTime
	var firstErr error
	for i := range entries {
		entry := &entries[i]
		if wanted != nil && !slices.Contains(wanted, entry.Layer) {
			continue
		}
		t := layerTime{layer: entry.Layer}
		var err error
		if row != nil && row.MeasuredUS[entry.Layer] > 0 {
			t.timeUS, t.kernels = row.MeasuredUS[entry.Layer], nil
			if entry.Category == "attention" {
				t.kernels = row.KernelsUS
			}
		} else if t.timeUS, err = e.layer(shot, entry); err != nil {
			if wanted != nil {
				return nil, err
			}
			if firstErr == nil {
				firstErr = err
			}
			continue
		}
		times = append(times, t)
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(entries, func(c perfio.CatalogEntry) bool { return c.Layer == name }) {
			return nil, fmt.Errorf("layer %s is not in the catalog", name)
		}
	}
	if len(times) == 0 {
		if firstErr == nil {
			firstErr = fmt.Errorf("no layer of the catalog is wanted")
		}
		return nil, firstErr
	}
	return times, nil
}

// layer is the time of one layer in a shot.
func (e *engine) layer(shot *profile.Shot, entry *perfio.CatalogEntry) (float64, error) {
	t := e.tablesOf(entry)
	switch entry.Category {
	case "dense":
		n := shot.Tokens()
		if v, ok := t.dense[countKey{entry.Layer, n}]; ok {
			return v, nil
		}
		if v, ok := e.curve((*traceloader.Table).Dense, t.degree, entry.Layer, n); ok {
			return v, nil
		}
		return 0, absent(t, perfio.DenseFile, "layer %s at %d tokens", entry.Layer, n)
	case "per_sequence":
		n := shot.Sequences()
		if v, ok := t.perSequence[countKey{entry.Layer, n}]; ok {
			return v, nil
		}
		if v, ok := e.curve((*traceloader.Table).PerSequence, t.degree, entry.Layer, n); ok {
			return v, nil
		}
		return 0, absent(t, perfio.PerSequenceFile, "layer %s at %d sequences", entry.Layer, n)
	case "moe":
		return e.moe(t, shot)
	case "attention":
		if shot.Category == profile.Skew && shot.Case != nil {
			return e.skew(t, shot)
		}
		return e.attention(t, shot)
	}
	return 0, fmt.Errorf("layer %s: unknown category %q", entry.Layer, entry.Category)
}

func absent(t *tables, file, format string, args ...any) error {
	return fmt.Errorf("the source has no row in tp%d/%s for %s", t.degree, file, fmt.Sprintf(format, args...))
}

// lookup is one of a table's two kinds of curves.
type lookup func(t *traceloader.Table, tp int, layer string) (traceloader.Curve, bool)

func (e *engine) curve(of lookup, tp int, layer string, n int) (float64, bool) {
	if e.lookups == nil {
		return 0, false
	}
	c, ok := of(e.lookups, tp, layer)
	if !ok {
		return 0, false
	}
	ns, ok := c.LatencyNS(n)
	return float64(ns) / 1000, ok
}

func (e *engine) moe(t *tables, shot *profile.Shot) (float64, error) {
	experts := shot.Experts
	if experts == 0 {
		for _, n := range shot.Histogram {
			if n > 0 {
				experts++
			}
		}
	}
	if experts == 0 {
		return 0, absent(t, perfio.MoEFile, "a routing that is left to the gate")
	}
	tokens := shot.Tokens()
	if v, ok := t.moe[moeKey{tokens, experts}]; ok && shot.Histogram == nil {
		return v, nil
	}
	if e.lookups != nil {
		if m, ok := e.lookups.MoE(); ok {
			if ns, ok := m.LatencyNS(tokens, experts); ok {
				return float64(ns) / 1000, nil
			}
		}
	}
	if shot.Histogram != nil {
		return 0, absent(t, perfio.MoEFile, "an uneven routing of %d tokens to %d experts", tokens, experts)
	}
	return 0, absent(t, perfio.MoEFile, "%d tokens and %d experts", tokens, experts)
}

func (e *engine) skew(t *tables, shot *profile.Shot) (float64, error) {
	c := shot.Case
	if row, ok := t.skew[caseKey(c)]; ok {
		switch shot.Role {
		case profile.RoleMean:
			return row.mean, nil
		case profile.RoleMax:
			return row.max, nil
		case profile.RoleSkew:
			return row.skew, nil
		}
		return 0, fmt.Errorf("unknown role %q of a skew case", shot.Role)
	}
	if v, ok := e.interpolated(t, shot.Requests()); ok {
		return v * e.source.skewRuns(), nil
	}
	return 0, absent(t, perfio.SkewFile, "n %d, nb %d, skew %v, pc %d, kp %d, kvs %d", c.N, c.NB, c.Skew, c.PC, c.KP, c.KVS)
}

// skewRuns is how many timed runs a time of the source's skew.csv is a sum of.
func (s *Source) skewRuns() float64 {
	return float64(max(s.bundle.Meta.SkewRuns(), 1))
}

func (e *engine) attention(t *tables, shot *profile.Shot) (float64, error) {
	key, single := attentionPoint(shot.Groups)
	if single {
		if v, ok := t.attention[key]; ok {
			return v, nil
		}
	}
	if v, ok := e.interpolated(t, shot.Requests()); ok {
		return v, nil
	}
	if !single {
		return 0, absent(t, perfio.AttentionFile, "%s, which takes more than one prefill chunk or decode length", shot.Shape())
	}
	return 0, absent(t, perfio.AttentionFile, "prefill_chunk %d, kv_prefill %d, n_decode %d, kv_decode %d", key.pc, key.kp, key.nd, key.kd)
}

// attentionPoint is the batch as a row of attention.csv, in whichever order its
// requests stand: one prefill chunk at most, and decodes of one length.
func attentionPoint(groups []profile.Group) (k attentionKey, ok bool) {
	for _, g := range groups {
		switch {
		case g.NewTokens == 1 && g.KVHistory > 0 && (k.nd == 0 || k.kd == g.KVHistory):
			k.nd, k.kd = k.nd+g.Count, g.KVHistory
		case (g.NewTokens > 1 || g.KVHistory == 0) && g.Count == 1 && k.pc == 0:
			k.pc, k.kp = g.NewTokens, g.KVHistory
		default:
			return k, false
		}
	}
	return k, k.pc > 0 || k.nd > 0
}

func (e *engine) interpolated(t *tables, requests []perfio.Request) (float64, bool) {
	if e.lookups == nil {
		return 0, false
	}
	a, ok := e.lookups.Attention(t.degree)
	if !ok {
		return 0, false
	}
	ns, ok := a.BatchLatencyNS(requests)
	return float64(ns) / 1000, ok
}

// shown is what a crash or a failure is told with.
func shown(shot *profile.Shot) string {
	parts := []string{string(shot.Category), shot.Shape()}
	if shot.Role != "" {
		parts = append(parts, string(shot.Role))
	}
	return strings.Join(parts, " ")
}
