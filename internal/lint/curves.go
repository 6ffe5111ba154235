package lint

import (
	"slices"

	"github.com/layerprof/layerprof/internal/tidy"
)

// Limits of the rules on curves over tokens or sequences. In brackets: the
// largest that measured bundles of two GPUs and three models show, each of them
// there again in a second run, so a kernel's own.
const (
	fallLimit     = 2.0 // (1.58: another tile size from 2,048-token act_fn and gate_up_proj on)
	spikeLimit    = 2.2 // over the largest of four neighbours (1.77: single token counts with a worse kernel)
	dipLimit      = 0.5 // of the smallest of four neighbours (0.78)
	plateauDense  = 8   // equal times in a row (5: clocks of GPUs count in steps of 1/32 us)
	smallIndex    = 16  // PyTorch looks up so many indices with another, slower kernel
	embeddingName = "embedding"
)

var curveRules = []Rule{
	{"falling", Warning, "a layer's latency falls by more than half as its work grows", checkFalling},
	{"spike", Warning, "one row is more than twice, or less than half, of all four neighbours", checkSpike},
	{"plateau", Warning, "a run of rows holds one and the same time", checkPlateau},
}

// curves are the layers of dense.csv and per_sequence.csv, each ascending.
func (s *subject) curves(do func(k layerKey, rows []*tidy.Row)) {
	keys, rows := s.layers("dense", "per_sequence")
	for _, k := range keys {
		list := slices.Clone(rows[k])
		slices.SortStableFunc(list, func(a, b *tidy.Row) int { return work(a) - work(b) })
		do(k, list)
	}
}

func work(r *tidy.Row) int { return r.Tokens + r.Sequences }

func checkFalling(s *subject, r *reporter) {
	s.curves(func(k layerKey, rows []*tidy.Row) {
		if k.layer == embeddingName {
			rows = slices.DeleteFunc(slices.Clone(rows), func(r *tidy.Row) bool { return r.Tokens <= smallIndex })
		}
		if len(rows) < 3 {
			return
		}
		// Medians of three: a single row is the spike rule's.
		smooth := make([]float64, len(rows))
		for i := range rows {
			near := []float64{rows[max(0, i-1)].TimeUS, rows[i].TimeUS, rows[min(len(rows)-1, i+1)].TimeUS}
			slices.Sort(near)
			smooth[i] = near[1]
		}
		top, worst, from, to := 0, 1.0, 0, 0
		for i, t := range smooth {
			if t > smooth[top] {
				top = i
			}
			if fall := smooth[top] / t; fall > worst {
				worst, from, to = fall, top, i
			}
		}
		if worst > fallLimit {
			r.rows([]*tidy.Row{rows[to], rows[from]}, "tp%d %s: %s takes %.1f times less than %s (%.6g and %.6g us)",
				k.tp, k.layer, rows[to].Shape(), worst, rows[from].Shape(), smooth[to], smooth[from])
			r.wholly(rows)
		}
	})
}

func checkSpike(s *subject, r *reporter) {
	s.curves(func(k layerKey, rows []*tidy.Row) {
		var found []*tidy.Row
		worst := 1.0
		for i := 2; i < len(rows)-2; i++ {
			near := []float64{rows[i-2].TimeUS, rows[i-1].TimeUS, rows[i+1].TimeUS, rows[i+2].TimeUS}
			low, high, t := slices.Min(near), slices.Max(near), rows[i].TimeUS
			off := 1.0
			switch {
			case t > spikeLimit*high:
				off = t / high
			case t < dipLimit*low:
				off = low / t
			default:
				continue
			}
			if found = append(found, rows[i]); off > worst {
				worst = off
				found[0], found[len(found)-1] = found[len(found)-1], found[0]
			}
		}
		if len(found) > 0 {
			r.rows(found, "tp%d %s: %d rows stand alone; %s is off from its four neighbours by %.1f times",
				k.tp, k.layer, len(found), found[0].Shape(), worst)
		}
	})
}

func checkPlateau(s *subject, r *reporter) {
	if s.Meta.Synthetic() {
		return // a formula has steps
	}
	report := func(k layerKey, run []*tidy.Row) {
		r.rows(run, "tp%d %s: %d rows in a row hold %.6g us, from %s to %s",
			k.tp, k.layer, len(run), run[0].TimeUS, run[0].Shape(), run[len(run)-1].Shape())
	}
	s.curves(func(k layerKey, rows []*tidy.Row) {
		eachRun(rows, plateauDense, func(run []*tidy.Row) { report(k, run) })
	})
	for _, tp := range s.TPs {
		// One finding a degree: many lines of the grid share a cause.
		var all []*tidy.Row
		seen := map[*tidy.Row]bool{}
		s.gridLines(tp.Degree, func(_ int, line []*tidy.Row) {
			eachRun(line, plateauGrid, func(run []*tidy.Row) {
				for _, row := range run {
					if !seen[row] {
						seen[row] = true
						all = append(all, row)
					}
				}
			})
		})
		if len(all) > 0 {
			r.rows(all, "tp%d attention: %d rows along one key hold one and the same time, among them %s with %.6g us",
				tp.Degree, len(all), all[0].Shape(), all[0].TimeUS)
		}
	}
}

// eachRun hands over runs of equal times of at least a length.
func eachRun(rows []*tidy.Row, least int, do func([]*tidy.Row)) {
	for start := 0; start < len(rows); {
		end := start + 1
		for end < len(rows) && rows[end].TimeUS == rows[start].TimeUS {
			end++
		}
		if end-start >= least {
			do(rows[start:end])
		}
		start = end
	}
}
