package lint

import (
	"math"
	"slices"

	"github.com/layerprof/layerprof/internal/tidy"
)

// Limits of the rules on attention's grid; in brackets what measured bundles
// show.
const (
	gridFallLimit  = 2.5  // along one key (1.93: FlashAttention-2, one more key block with 64 decodes of 16k)
	gridSpikeLimit = 1.3  // over all neighbours along at least two keys (1.11)
	gridDipLimit   = 0.65 // of the smallest of them (0.81)
	plateauGrid    = 5    // equal times along one key (3)
	mergedLimit    = 0.04 // offset between subgrids (0.027)
	mergedRows     = 20   // rows of each subgrid that the offset needs
	moeFallLimit   = 1.10 // over experts (1.00)
)

var attentionRules = []Rule{
	{"attention-falling", Warning, "attention falls to less than 1/2.5 as one of its keys grows", checkGridFalling},
	{"attention-spike", Warning, "a row of the attention grid stands out along every key", checkGridSpike},
	{"merged-grids", Warning, "interleaved subgrids of attention.csv are offset: sweeps of different states", checkMerged},
	{"moe-falling", Warning, "moe.csv falls as more experts are active", checkMoE},
}

// axis reads and clears one of attention's keys.
type axis struct {
	name string
	at   func(*tidy.Key) *int
}

// gridAxes in the order of the keys.
var gridAxes = [4]axis{
	{"prefill_chunk", func(k *tidy.Key) *int { return &k.PrefillChunk }},
	{"kv_prefill", func(k *tidy.Key) *int { return &k.KVPrefill }},
	{"n_decode", func(k *tidy.Key) *int { return &k.NDecode }},
	{"kv_decode", func(k *tidy.Key) *int { return &k.KVDecode }},
}

// gridLines hands over the lines of a degree's grid along each axis: rows that
// differ in that key only, ascending. Rows where the key is 0 for want of a
// chunk or of decodes are no part of a line.
func (s *subject) gridLines(degree int, do func(axis int, line []*tidy.Row)) {
	if _, ok := s.lines[degree]; !ok {
		s.lines[degree] = s.findLines(degree)
	}
	for i, lines := range s.lines[degree] {
		for _, line := range lines {
			do(i, line)
		}
	}
}

// findLines are the lines of a degree by axis.
func (s *subject) findLines(degree int) (out [4][][]*tidy.Row) {
	for i, a := range gridAxes {
		at := map[[4]int]int{} // into out[i]
		for j := range s.rows {
			row := &s.rows[j]
			if row.Table != "attention" || row.TP != degree {
				continue
			}
			if *a.at(&row.Key) == 0 && (a.name != "kv_prefill" || row.PrefillChunk == 0) {
				continue
			}
			key := [4]int{row.PrefillChunk, row.KVPrefill, row.NDecode, row.KVDecode}
			key[i] = -1
			n, ok := at[key]
			if !ok {
				n = len(out[i])
				at[key] = n
				out[i] = append(out[i], nil)
			}
			out[i][n] = append(out[i][n], row)
		}
		for _, line := range out[i] {
			slices.SortStableFunc(line, func(x, y *tidy.Row) int { return *a.at(&x.Key) - *a.at(&y.Key) })
		}
	}
	return out
}

func checkGridFalling(s *subject, r *reporter) {
	for _, tp := range s.TPs {
		var found []*tidy.Row
		var from *tidy.Row
		worst, place := gridFallLimit, map[*tidy.Row]int{} // of a row in found
		s.gridLines(tp.Degree, func(_ int, line []*tidy.Row) {
			top := line[0]
			for _, row := range line {
				if row.TimeUS > top.TimeUS {
					top = row
				}
				fall := top.TimeUS / row.TimeUS
				if fall <= gridFallLimit {
					continue
				}
				if _, ok := place[row]; !ok {
					place[row] = len(found)
					found = append(found, row)
				}
				if fall > worst {
					worst, from = fall, top
					i := place[row]
					found[0], found[i] = found[i], found[0]
					place[found[0]], place[found[i]] = 0, i
				}
			}
		})
		if len(found) > 0 {
			r.rows(found, "tp%d attention: %d rows are faster than with less work; %s takes %.1f times less than %s",
				tp.Degree, len(found), found[0].Shape(), worst, from.Shape())
		}
	}
}

// isolated is how a row stands to its neighbours along the axes.
type isolated struct {
	axes      int
	high, low float64 // least excess over, and greatest share of, the neighbours
}

func checkGridSpike(s *subject, r *reporter) {
	for _, tp := range s.TPs {
		stand := map[*tidy.Row]*isolated{}
		var order []*tidy.Row
		s.gridLines(tp.Degree, func(_ int, line []*tidy.Row) {
			for i := 1; i+1 < len(line); i++ {
				a, t, b := line[i-1].TimeUS, line[i].TimeUS, line[i+1].TimeUS
				one := stand[line[i]]
				if one == nil {
					one = &isolated{high: math.Inf(1)}
					stand[line[i]] = one
					order = append(order, line[i])
				}
				one.axes++
				one.high, one.low = min(one.high, t/max(a, b)), max(one.low, t/min(a, b))
			}
		})
		var found []*tidy.Row
		worst := 1.0
		for _, row := range order {
			one := stand[row]
			if one.axes < 2 || one.high < gridSpikeLimit && one.low > gridDipLimit {
				continue
			}
			found = append(found, row)
			if off := max(one.high, 1/one.low); off > worst {
				worst = off
				found[0], found[len(found)-1] = found[len(found)-1], found[0]
			}
		}
		if len(found) > 0 {
			r.rows(found, "tp%d attention: %d rows stand alone; %s is off from its neighbours along every key by %.2f times",
				tp.Degree, len(found), found[0].Shape(), worst)
		}
	}
}

// checkMerged compares each row with the line between its neighbours of the
// other subgrid. The curve's own bend is in both directions alike and cancels.
func checkMerged(s *subject, r *reporter) {
	for _, tp := range s.TPs {
		for i, a := range gridAxes {
			var doubled, other []float64
			var rows []*tidy.Row
			s.gridLines(tp.Degree, func(axis int, line []*tidy.Row) {
				if axis != i {
					return
				}
				for j := 1; j+1 < len(line); j++ {
					x0, x1, x2 := *a.at(&line[j-1].Key), *a.at(&line[j].Key), *a.at(&line[j+1].Key)
					in := isDoubled(x1)
					if isDoubled(x0) == in || isDoubled(x2) == in {
						continue
					}
					share := float64(x1-x0) / float64(x2-x0)
					off := math.Log(line[j].TimeUS / (line[j-1].TimeUS + share*(line[j+1].TimeUS-line[j-1].TimeUS)))
					if in {
						doubled = append(doubled, off)
					} else {
						other, rows = append(other, off), append(rows, line[j])
					}
				}
			})
			if len(doubled) < mergedRows || len(other) < mergedRows {
				continue
			}
			if offset := (median(other) - median(doubled)) / 2; math.Abs(offset) > mergedLimit {
				r.rows(rows, "tp%d attention: rows of the finer %s grid are %+.1f%% off those at 16·2^k between which they stand (%d and %d rows)",
					tp.Degree, a.name, 100*math.Expm1(offset), len(other), len(doubled))
				break
			}
		}
	}
}

// isDoubled: 16·2^k, the default plan's grid.
func isDoubled(v int) bool { return v >= 16 && v%16 == 0 && (v/16)&(v/16-1) == 0 }

func median(list []float64) float64 {
	list = slices.Clone(list)
	slices.Sort(list)
	n := len(list)
	return (list[(n-1)/2] + list[n/2]) / 2
}

func checkMoE(s *subject, r *reporter) {
	keys, rows := s.layers("moe")
	for _, k := range keys {
		byTokens := map[int][]*tidy.Row{}
		var tokens []int
		for _, row := range rows[k] {
			if byTokens[row.Tokens] == nil {
				tokens = append(tokens, row.Tokens)
			}
			byTokens[row.Tokens] = append(byTokens[row.Tokens], row)
		}
		slices.Sort(tokens)
		var found []*tidy.Row
		worst := 1.0
		for _, n := range tokens {
			line := byTokens[n]
			slices.SortStableFunc(line, func(a, b *tidy.Row) int { return a.ActivatedExperts - b.ActivatedExperts })
			top := line[0].TimeUS
			for _, row := range line {
				top = max(top, row.TimeUS)
				if fall := top / row.TimeUS; fall > moeFallLimit {
					if found = append(found, row); fall > worst {
						worst = fall
						found[0], found[len(found)-1] = found[len(found)-1], found[0]
					}
				}
			}
		}
		if len(found) > 0 {
			r.rows(found, "tp%d moe: %d rows are faster than with fewer experts; %s by %.2f times", k.tp, len(found), found[0].Shape(), worst)
		}
	}
}
