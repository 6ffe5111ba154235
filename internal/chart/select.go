package chart

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/perfio"
)

// title names a bundle's part; a bundle that was not measured says so.
func title(b *perfio.Bundle, tp int, what string) string {
	s := fmt.Sprintf("%s %s %s tp%d: %s", b.Meta.Hardware(), b.Meta.Model(), b.Meta.Variant(), tp, what)
	if o := b.Meta.Origin(); o != perfio.OriginMeasured {
		s += " [" + o + "]"
	}
	return s
}

const latency = "latency, us"

// Dense is a layer's measured times over tokens.
func Dense(b *perfio.Bundle, tp *perfio.TP, layer string) (*Curve, error) {
	times, names := map[int]float64{}, map[string]bool{}
	for _, r := range tp.Dense {
		if names[r.Layer] = true; r.Layer == layer {
			times[r.Tokens] = r.TimeUS
		}
	}
	return curve(b, tp, layer, "tokens", times, names)
}

// PerSequence is a layer's measured times over sequences.
func PerSequence(b *perfio.Bundle, tp *perfio.TP, layer string) (*Curve, error) {
	times, names := map[int]float64{}, map[string]bool{}
	for _, r := range tp.PerSequence {
		if names[r.Layer] = true; r.Layer == layer {
			times[r.Sequences] = r.TimeUS
		}
	}
	return curve(b, tp, layer, "sequences", times, names)
}

func curve(b *perfio.Bundle, tp *perfio.TP, layer, axis string, times map[int]float64, names map[string]bool) (*Curve, error) {
	if len(times) == 0 {
		return nil, fmt.Errorf("%s: tp%d: found no rows of %q over %s, expected one of: %s", b.Dir, tp.Degree, layer, axis,
			few(slices.Sorted(maps.Keys(names))))
	}
	c := &Curve{Title: title(b, tp.Degree, layer), XLabel: axis, YLabel: latency}
	for _, x := range sortedKeys(times) {
		c.X, c.Y = append(c.X, float64(x)), append(c.Y, times[x])
	}
	return c, nil
}

// Attention is the measured grid at one chunk and history: decodes over their
// length, and with no decodes (a pure prefill) as the first row and column.
func Attention(b *perfio.Bundle, tp *perfio.TP, chunk, history int) (*HeatMap, error) {
	at, chunks, histories := map[[2]int]float64{}, map[int]bool{}, map[int]bool{}
	for _, r := range tp.Attention {
		chunks[r.PrefillChunk] = true
		if r.PrefillChunk != chunk {
			continue
		}
		if histories[r.KVPrefill] = true; r.KVPrefill == history {
			at[[2]int{r.KVDecode, r.NDecode}] = r.TimeUS
		}
	}
	what := fmt.Sprintf("attention, prefill_chunk %d, kv_prefill %d", chunk, history)
	if name, had := "prefill_chunk", chunks; len(at) == 0 && len(tp.Attention) > 0 {
		if len(histories) > 0 {
			name, had = "kv_prefill", histories
		}
		return nil, fmt.Errorf("%s: tp%d: found no rows of %s, expected %s one of: %s", b.Dir, tp.Degree, what, name, few(slices.Sorted(maps.Keys(had))))
	}
	return heatMap(b, tp, what, "kv_decode", "n_decode", at)
}

// MoE is the measured grid of activated experts and tokens.
func MoE(b *perfio.Bundle, tp *perfio.TP) (*HeatMap, error) {
	at := map[[2]int]float64{}
	for _, r := range tp.MoE {
		at[[2]int{r.ActivatedExperts, r.Tokens}] = r.TimeUS
	}
	return heatMap(b, tp, "moe", "activated_experts", "tokens", at)
}

func heatMap(b *perfio.Bundle, tp *perfio.TP, what, x, y string, at map[[2]int]float64) (*HeatMap, error) {
	if len(at) == 0 {
		return nil, fmt.Errorf("%s: tp%d: found no rows of %s", b.Dir, tp.Degree, what)
	}
	columns, rows := map[int]float64{}, map[int]float64{}
	for k := range at {
		columns[k[0]], rows[k[1]] = 0, 0
	}
	h := &HeatMap{Title: title(b, tp.Degree, what), XLabel: x, YLabel: y, ZLabel: latency, Columns: sortedKeys(columns), Rows: sortedKeys(rows)}
	for _, row := range h.Rows {
		line := make([]float64, len(h.Columns))
		for i, column := range h.Columns {
			v, ok := at[[2]int{column, row}]
			if line[i] = v; !ok {
				line[i] = math.NaN()
			}
		}
		h.Z = append(h.Z, line)
	}
	return h, nil
}

// few lists values, of many the first.
func few[T any](list []T) string {
	const most = 40
	more := ""
	if len(list) > most {
		list, more = list[:most], ", ..."
	}
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = fmt.Sprint(v)
	}
	return Printable(strings.Join(parts, ", ")) + more
}

func sortedKeys(m map[int]float64) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
