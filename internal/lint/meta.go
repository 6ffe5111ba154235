package lint

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
)

// driftLimit is the slowest over the fastest anchor of a run, which are
// corrected by the run; beyond it a correction says little (1.023).
const driftLimit = 1.10

var metaRules = []Rule{
	{"coverage", Warning, "the engine's limits reach further than the tables", checkCoverage},
	{"missing-layer", Error, "a layer of the architecture's sequence has no rows", checkMissing},
	{"drift", Warning, "the run's anchors drifted further than a correction mends", checkDrift},
	{"meta-folder", Error, "meta.yaml names other hardware, model or variant than the folders", checkFolder},
}

func checkCoverage(s *subject, r *reporter) {
	limits := s.Meta.Limits()
	for _, tp := range s.TPs {
		reach := map[string]int{}
		regimes := map[string]bool{}
		for i := range s.rows {
			row := &s.rows[i]
			if row.TP != tp.Degree {
				continue
			}
			note := func(name string, v int) { reach[name] = max(reach[name], v) }
			switch row.Table {
			case "dense":
				note("dense.csv tokens", row.Tokens)
			case "per_sequence":
				note("per_sequence.csv sequences", row.Sequences)
			case "attention":
				note("attention.csv prefill_chunk", row.PrefillChunk)
				note("attention.csv n_decode", row.NDecode)
				note("attention.csv kv_decode", row.KVDecode)
				regimes[regimeOf(row)] = true
			}
		}
		kv := s.Meta.Int("attention_grid", "max_kv")
		if limits.MaxModelLen > 0 {
			kv = min(kv, limits.MaxModelLen)
		}
		kv -= 2 // the longest history that leaves room for a token
		for _, one := range []struct {
			name, limit string
			want        int
		}{
			{"dense.csv tokens", "max_num_batched_tokens", limits.MaxNumBatchedTokens},
			{"per_sequence.csv sequences", "max_num_seqs", limits.MaxNumSeqs},
			{"attention.csv prefill_chunk", "max_num_batched_tokens", limits.MaxNumBatchedTokens},
			{"attention.csv n_decode", "max_num_seqs", limits.MaxNumSeqs},
			{"attention.csv kv_decode", "attention_grid.max_kv", kv},
		} {
			have, measured := reach[one.name]
			if file, _, _ := strings.Cut(one.name, " "); measured && have < one.want {
				r.place(fmt.Sprintf("tp%d/%s", tp.Degree, file), 0, r.goOn(strings.TrimSuffix(file, ".csv"), ""),
					"tp%d: %s reach %d, meta.yaml's %s is %d: beyond, lookups extrapolate", tp.Degree, one.name, have, one.limit, one.want)
			}
		}
		for _, regime := range []string{"decode", "prefill", "mixed"} {
			if len(regimes) > 0 && !regimes[regime] {
				r.place(fmt.Sprintf("tp%d/%s", tp.Degree, perfio.AttentionFile), 0, r.goOn("attention", ""),
					"tp%d: attention.csv holds no %s batch", tp.Degree, regime)
			}
		}
	}
}

func regimeOf(r *tidy.Row) string {
	switch {
	case r.PrefillChunk == 0:
		return "decode"
	case r.NDecode == 0:
		return "prefill"
	}
	return "mixed"
}

func checkMissing(s *subject, r *reporter) {
	if s.arch == nil {
		return
	}
	keys, _ := s.layers("dense", "per_sequence", "attention", "moe")
	q := s.arch.Sequence
	var wanted []string
	for _, layer := range slices.Concat(q.Prologue, q.PreAttn, q.PostAttn, q.MLPDense, q.MLPMoE, q.Head) {
		if !slices.Contains(wanted, layer) {
			wanted = append(wanted, layer)
		}
	}
	for i, tp := range s.TPs {
		if len(tp.Steps) > 0 && len(tp.Dense)+len(tp.PerSequence)+len(tp.Attention)+len(tp.MoE) == 0 {
			continue // measured for another bundle's lookups
		}
		for _, layer := range wanted {
			table := s.arch.Entry(layer).Category
			if table == "moe" && i > 0 {
				continue // measured at the lowest degree only
			}
			if !slices.Contains(keys, layerKey{tp.Degree, table, layer}) {
				r.place(fmt.Sprintf("tp%d/%s.csv", tp.Degree, table), 0, r.goOn(table, ""),
					"tp%d: no row of %s, a layer of the %s sequence", tp.Degree, layer, s.Meta.Architecture())
			}
		}
	}
}

func checkDrift(s *subject, r *reporter) {
	fast, errFast := strconv.ParseFloat(s.Meta.Text("telemetry", "anchors", "fastest"), 64)
	slow, errSlow := strconv.ParseFloat(s.Meta.Text("telemetry", "anchors", "slowest"), 64)
	if errFast != nil || errSlow != nil || !(fast > 0) {
		return // not recorded
	}
	if drift := slow / fast; drift > driftLimit {
		node := s.Meta.Get("telemetry", "anchors", "slowest")
		r.place(perfio.MetaFile, node.Line, "profile run with locked clocks, or on a device that is warm and alone",
			"the slowest anchor took %.2f times as long as the fastest", drift)
	}
}

// checkFolder compares the folders with meta.yaml where at least one of its
// names agrees: a bundle that lies in no such tree says nothing.
func checkFolder(s *subject, r *reporter) {
	dir := filepath.ToSlash(filepath.Clean(s.Dir))
	if absolute, err := filepath.Abs(s.Dir); err == nil && s.Dir != "" {
		dir = filepath.ToSlash(absolute)
	}
	model := s.Meta.Model()
	depth := strings.Count(model, "/") + 1
	parts := strings.Split(dir, "/")
	if s.Dir == "" || strings.HasSuffix(dir, ".tar.zst") || len(parts) < depth+2 {
		return
	}
	n := len(parts)
	type name struct{ key, meta, folder string }
	names := []name{
		{"variant", s.Meta.Variant(), parts[n-1]},
		{"model", model, path.Join(parts[n-1-depth : n-1]...)},
		{"hardware", s.Meta.Hardware(), parts[n-2-depth]},
	}
	agree := slices.ContainsFunc(names, func(x name) bool { return x.meta == x.folder && x.meta != "" })
	for _, x := range names {
		if agree && x.meta != "" && x.meta != x.folder {
			r.place(perfio.MetaFile, s.Meta.Get(x.key).Line, "", "%s: found %q, the folder is %q", x.key, x.meta, x.folder)
		}
	}
}

// Synthetic is the rule that Together applies.
var Synthetic = Rule{Name: "synthetic", Severity: Warning, About: "a computed bundle stands among measured ones of the same hardware"}

// Together finds what is wrong with a bundle only beside others, of which no
// more than meta.yaml is used.
func Together(b *perfio.Bundle, others []*perfio.Bundle) []Finding {
	if b.Meta.Origin() == perfio.OriginMeasured || b.Meta.Hardware() == "" {
		return nil
	}
	i := slices.IndexFunc(others, func(o *perfio.Bundle) bool {
		return o.Meta.Origin() == perfio.OriginMeasured && o.Meta.Hardware() == b.Meta.Hardware()
	})
	if i < 0 {
		return nil
	}
	r := newReporter(Synthetic, &subject{Bundle: b})
	r.place(perfio.MetaFile, b.Meta.Get("origin").Line, "", "origin is %s, %s of the same hardware is measured: keep them in roots of their own",
		b.Meta.Origin(), others[i].Dir)
	return r.found
}
