package chart

import (
	"fmt"
	"math"
	"slices"

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
	times := map[int]float64{}
	for _, r := range tp.Dense {
		if r.Layer == layer {
			times[r.Tokens] = r.TimeUS
		}
	}
	return curve(b, tp, layer, "tokens", times)
}

// PerSequence is a layer's measured times over sequences.
func PerSequence(b *perfio.Bundle, tp *perfio.TP, layer string) (*Curve, error) {
	times := map[int]float64{}
	for _, r := range tp.PerSequence {
		if r.Layer == layer {
			times[r.Sequences] = r.TimeUS
		}
	}
	return curve(b, tp, layer, "sequences", times)
}

func curve(b *perfio.Bundle, tp *perfio.TP, layer, axis string, times map[int]float64) (*Curve, error) {
	if len(times) == 0 {
		return nil, fmt.Errorf("%s: tp%d: found no rows of %q over %s", b.Dir, tp.Degree, layer, axis)
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
	at := map[[2]int]float64{}
	for _, r := range tp.Attention {
		if r.PrefillChunk == chunk && r.KVPrefill == history {
			at[[2]int{r.KVDecode, r.NDecode}] = r.TimeUS
		}
	}
	what := fmt.Sprintf("attention, prefill_chunk %d, kv_prefill %d", chunk, history)
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

func sortedKeys(m map[int]float64) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
