package lint

import (
	"math"
	"strings"

	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
)

// Limits of the rules on what a device can do; in brackets what measured
// bundles show.
const (
	tooFast    = 0.85 // of the least time (1.05 and more)
	leastUS    = 0.5  // no kernel takes less (1.74)
	unitFactor = 100  // over the least time at a layer's largest shape (2.0)
	mostUS     = 1000 // smallest shape of a layer without matrix products (32)
)

var rooflineRules = []Rule{
	{"too-fast", Error, "rows faster than the named device can be: a kernel that failed", checkTooFast},
	{"units", Error, "a layer's times are off by about 1,000", checkUnits},
}

// leastTimes gives the least time of rows in microseconds by the device's public
// peak rates, 0 where nothing is known. Data that fits the last cache may come
// from there.
type leastTimes struct {
	flops, bytes float64 // per microsecond
	cache        float64
	kvBytes      float64 // of one number of the KV cache
	models       map[int]*perfio.ModelConfig
}

func newLeastTimes(s *subject) *leastTimes {
	if s.spec == nil || s.model == nil {
		return nil
	}
	l := &leastTimes{bytes: s.spec.MemoryGBPerS * 1e3, cache: s.spec.CacheMiB * (1 << 20), kvBytes: 2, models: map[int]*perfio.ModelConfig{}}
	variant := s.Meta.Variant()
	l.flops = s.spec.PeakTFLOPS["bfloat16"] * 1e6
	if weights, _, _ := strings.Cut(variant, "-"); weights != "bf16" && weights != "fp16" {
		for _, rate := range s.spec.PeakTFLOPS { // another type: the fastest
			l.flops = max(l.flops, rate*1e6)
		}
	}
	if strings.Contains(variant, "kv") {
		l.kvBytes = 1
	}
	for _, tp := range s.TPs {
		if m, err := s.model.Divide(tp.Degree); err == nil {
			l.models[tp.Degree] = m
		}
	}
	if l.flops == 0 {
		return nil
	}
	return l
}

// LeastUS returns the least time of a bundle's rows by the public peak rates of
// its device, in microseconds, 0 for a layer of which none is known. It is nil
// where the device or the model's config is not known.
func LeastUS(b *perfio.Bundle) func(tidy.Key) float64 {
	if l := newLeastTimes(newSubject(&perfio.Bundle{Dir: b.Dir, Meta: b.Meta, TPs: degreesOnly(b.TPs)})); l != nil {
		return l.us
	}
	return nil
}

// degreesOnly are the degrees without their rows.
func degreesOnly(tps []perfio.TP) []perfio.TP {
	out := make([]perfio.TP, len(tps))
	for i := range tps {
		out[i].Degree = tps[i].Degree
	}
	return out
}

// us is the least time of a row.
func (l *leastTimes) us(r tidy.Key) float64 {
	m := l.models[r.TP]
	if m == nil {
		return 0
	}
	hidden, head := float64(m.HiddenSize), float64(m.HeadDim)
	heads, kvHeads := float64(m.NumAttentionHeads), float64(m.NumKeyValueHeads)
	product := func(n, in, out float64) float64 {
		// Weights of a narrow type are not known here: one byte a number.
		return max(2*n*in*out/l.flops, (in*out-l.cache)/l.bytes)
	}
	n := float64(r.Tokens + r.Sequences)
	switch r.Layer {
	case "qkv_proj":
		return product(n, hidden, (heads+2*kvHeads)*head)
	case "o_proj":
		return product(n, heads*head, hidden)
	case "gate_up_proj":
		return product(n, hidden, 2*float64(m.IntermediateSize))
	case "down_proj":
		return product(n, float64(m.IntermediateSize), hidden)
	case "lm_head":
		return product(n, hidden, float64(m.VocabSize))
	case "moe":
		return 2 * n * float64(m.NumExpertsPerToken) * 3 * hidden * float64(m.MoEIntermediateSize) / l.flops
	case "attention":
		chunk, decodes := float64(r.PrefillChunk), float64(r.NDecode)
		pairs := chunk*(float64(r.KVPrefill)+chunk/2) + decodes*float64(r.KVDecode)
		tokens := float64(r.KVPrefill) + decodes*float64(r.KVDecode)
		return max(4*pairs*heads*head/l.flops, (2*tokens*kvHeads*head*l.kvBytes-l.cache)/l.bytes)
	}
	return 0
}

func checkTooFast(s *subject, r *reporter) {
	least := newLeastTimes(s)
	keys, rows := s.layers("dense", "per_sequence", "attention", "moe")
	for _, k := range keys {
		var found []*tidy.Row
		worst, worstLimit := 1.0, 0.0
		for _, row := range rows[k] {
			limit := leastUS
			if least != nil {
				limit = max(limit, tooFast*least.us(row.Key))
			}
			if row.TimeUS >= limit {
				continue
			}
			found = append(found, row)
			if share := row.TimeUS / limit; share < worst {
				worst, worstLimit = share, limit
				found[0], found[len(found)-1] = found[len(found)-1], found[0]
			}
		}
		if len(found) > 0 {
			device := "a kernel"
			if s.spec != nil {
				device = "the " + s.spec.Key
			}
			r.rows(found, "tp%d %s: %d rows are faster than %s can be; %s took %.4g us, at least %.4g are needed",
				k.tp, k.layer, len(found), device, found[0].Shape(), found[0].TimeUS, worstLimit)
		}
	}
}

func checkUnits(s *subject, r *reporter) {
	least := newLeastTimes(s)
	keys, rows := s.layers("dense", "per_sequence", "attention", "moe")
	for _, k := range keys {
		first, heaviest, most := rows[k][0], (*tidy.Row)(nil), 0.0
		for _, row := range rows[k] {
			if work(row) < work(first) {
				first = row
			}
			if least != nil && least.us(row.Key) > most {
				heaviest, most = row, least.us(row.Key)
			}
		}
		switch {
		case most > 1 && (heaviest.TimeUS > unitFactor*most || heaviest.TimeUS < most/unitFactor):
			r.rows([]*tidy.Row{heaviest}, "tp%d %s: %s took %.4g us, %.3g times what the %s needs at least: times are not in microseconds, or the kernel did not run",
				k.tp, k.layer, heaviest.Shape(), heaviest.TimeUS, heaviest.TimeUS/most, s.spec.Key)
			r.wholly(rows[k])
		case most == 0 && k.table != "attention" && k.table != "moe" && !matrix(k.layer) && first.TimeUS > mostUS:
			r.rows([]*tidy.Row{first}, "tp%d %s: the smallest shape, %s, took %.4g us: times are not in microseconds", k.tp, k.layer, first.Shape(), first.TimeUS)
			r.wholly(rows[k])
		}
	}
}

// matrix says whether a layer reads weights, which may take any time on a
// device that is not known.
func matrix(layer string) bool {
	return strings.HasSuffix(layer, "_proj") || layer == "lm_head" || layer == "moe"
}

// leastShare is the smallest ratio of a row's time to the least time, for the
// tests that hold the limits to measured bundles.
func leastShare(s *subject) (low, high float64) {
	least := newLeastTimes(s)
	low = math.Inf(1)
	if least == nil {
		return low, 0
	}
	keys, rows := s.layers("dense", "per_sequence", "attention", "moe")
	for _, k := range keys {
		most, ratio := 0.0, 0.0
		for _, row := range rows[k] {
			if us := least.us(row.Key); us > 1 {
				low = min(low, row.TimeUS/us)
				if us > most {
					most, ratio = us, row.TimeUS/us
				}
			}
		}
		high = max(high, ratio)
	}
	return low, high
}
