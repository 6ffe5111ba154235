package lint

import (
	"slices"

	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
)

// Limits of the rules that compare degrees; in brackets what measured bundles
// show.
const (
	slowerLimit = 1.10 // median over a layer's shared shapes (1.00)
	sharedRows  = 8    // shapes that a comparison needs
)

var degreeRules = []Rule{
	{"tp-copies", Warning, "rows of a tp_stable layer differ between degrees, that are copies of the lowest's", checkCopies},
	{"tp-slower", Error, "a layer is slower with a larger tensor-parallel degree", checkSlower},
	{"tp-identical", Error, "a layer that is divided among ranks has the same rows at two degrees", checkIdentical},
	{"tp-collectives", Error, "collectives of a degree that is emulated, or of another number of ranks; or a real degree above 1 without any", checkCollectives},
}

// shared is a layer that two degrees have.
type shared struct {
	table, layer string
	low, high    int         // degrees
	first, other []*tidy.Row // of equal keys
	ratios       []float64   // other over first
}

// degreePairs hands over every layer of each degree beside that of the lowest
// degree that has it.
func (s *subject) degreePairs(do func(*shared)) {
	keys, rows := s.layers("dense", "per_sequence", "attention", "moe")
	lowest := map[layerKey]layerKey{}
	for _, k := range keys {
		low, ok := lowest[layerKey{0, k.table, k.layer}]
		if !ok {
			lowest[layerKey{0, k.table, k.layer}] = k
			continue
		}
		at := map[tidy.Key]*tidy.Row{}
		for _, row := range rows[low] {
			key := row.Key
			key.TP = 0
			at[key] = row
		}
		p := &shared{table: k.table, layer: k.layer, low: low.tp, high: k.tp}
		for _, row := range rows[k] {
			key := row.Key
			key.TP = 0
			if first := at[key]; first != nil {
				p.first, p.other = append(p.first, first), append(p.other, row)
				p.ratios = append(p.ratios, row.TimeUS/first.TimeUS)
			}
		}
		do(p)
	}
}

// realTP: ranks of a real engine measure every layer for themselves, and do
// work that one device alone does not (masking other ranks' tokens).
func (s *subject) realTP() bool { return s.Meta.TPMode() == perfio.TPModeReal }

func checkCopies(s *subject, r *reporter) {
	if s.realTP() {
		return
	}
	s.degreePairs(func(p *shared) {
		if !s.stable(p.layer) {
			return
		}
		var found []*tidy.Row
		worst := 1.0
		for i, ratio := range p.ratios {
			if ratio == 1 {
				continue
			}
			found = append(found, p.other[i])
			if off := max(ratio, 1/ratio); off > worst {
				worst = off
				found[0], found[len(found)-1] = found[len(found)-1], found[0]
			}
		}
		if len(found) > 0 {
			r.rows(found, "tp%d %s: %d of %d rows are not those of tp%d, %s by %.3f times; the layer is tp_stable",
				p.high, p.layer, len(found), len(p.ratios), p.low, found[0].Shape(), worst)
			r.last().Again = r.goOn(found[0].Table, "")
		}
	})
}

func checkCollectives(s *subject, r *reporter) {
	for i := range s.TPs {
		tp := &s.TPs[i]
		switch {
		case !s.realTP() && len(tp.Collectives) > 0:
			r.rowsOf(tp.Degree, "collectives", "tp%d has %d rows of collectives and is emulated", tp.Degree, len(tp.Collectives))
			r.last().Again = ""
		case s.realTP() && tp.Degree > 1 && len(tp.Collectives) == 0:
			r.place(perfio.MetaFile, 0, r.again(tp.Degree, "dense", nil), "tp%d is real and has no collectives: its layers are not all of a step", tp.Degree)
		case s.realTP():
			other := slices.IndexFunc(tp.Collectives, func(c perfio.CollectiveRow) bool { return c.Ranks != tp.Degree })
			if other >= 0 {
				c := tp.Collectives[other]
				r.rowsOf(tp.Degree, "collectives", "tp%d %s: %s of %d ranks", tp.Degree, c.Layer, c.Collective, c.Ranks)
			}
		}
	}
}

// rowsOf reports a whole table of a degree.
func (r *reporter) rowsOf(tp int, table, format string, args ...any) {
	var rows []*tidy.Row
	for i := range r.s.rows {
		if row := &r.s.rows[i]; row.TP == tp && row.Table == table {
			rows = append(rows, row)
		}
	}
	r.rows(rows, format, args...)
}

func checkSlower(s *subject, r *reporter) {
	if s.realTP() {
		return
	}
	s.degreePairs(func(p *shared) {
		if len(p.ratios) < sharedRows || s.stable(p.layer) {
			return
		}
		if m := median(p.ratios); m > slowerLimit {
			r.rows(p.other, "tp%d %s takes %.2f times as long as tp%d (median of %d shapes)", p.high, p.layer, m, p.low, len(p.ratios))
		}
	})
}

func checkIdentical(s *subject, r *reporter) {
	if s.Meta.Synthetic() {
		return // a formula may know of no difference, as with the embedding
	}
	s.degreePairs(func(p *shared) {
		if len(p.ratios) < sharedRows || s.stable(p.layer) || s.arch == nil {
			return
		}
		if !slices.ContainsFunc(p.ratios, func(ratio float64) bool { return ratio != 1 }) {
			r.rows(p.other, "tp%d %s: all %d rows are those of tp%d, though each rank has a share of the layer", p.high, p.layer, len(p.ratios), p.low)
		}
	})
}
