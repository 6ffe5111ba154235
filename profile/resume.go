package profile

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/layerprof/layerprof/internal/sweep"
	"github.com/layerprof/layerprof/perfio"
)

// importRows lets the rows of a bundle that has no journal count as measured:
// they enter the journal as single values of unknown spread.
func (r *runner) importRows() error {
	d, x := r.degree, &r.journal.index
	old, err := r.readBundle()
	if err != nil || old.Meta == nil {
		return err
	}
	if err := r.noteStatistic(old); err != nil {
		return err
	}
	for k := range x.shots {
		if k.tp == d.tp {
			return nil // the journal knows
		}
	}
	tp := old.TP(d.tp)
	if tp == nil || len(tp.Dense)+len(tp.PerSequence)+len(tp.Attention)+len(tp.MoE)+len(tp.Skew) == 0 {
		return nil
	}
	if err := r.compareMeta(old.Meta); err != nil {
		return err
	}
	n := 0
	add := func(shot *Shot, layer string, us float64, alpha *float64) error {
		n++
		scope := shotScope(shot)
		if r.PlanOptions.ShareRepeats && shot.Category != Skew {
			scope = "" // but skew.csv may hold sums of several runs
		}
		return r.journal.append(&record{
			Kind: recordShot, Env: d.env, TP: d.tp, Scope: scope, Shape: shot.Shape(), Status: OK, Imported: true,
			Alpha: alpha, Layers: []layerRecord{{Layer: layer, US: []float64{us}}},
		})
	}
	for _, c := range d.rowsPlan(r, tp) {
		if err := c(add); err != nil {
			return err
		}
	}
	if n > 0 {
		r.warn("%s has no journal: %d values of its tables count as measured", filepath.Join(r.Dir, fmt.Sprintf("tp%d", d.tp)), n)
	}
	return r.journal.sync()
}

// importer takes one value of a table into the journal.
type importer func(shot *Shot, layer string, us float64, alpha *float64) error

// rowsPlan turns a tp folder's rows into the shots that they answer.
func (d *degree) rowsPlan(r *runner, tp *perfio.TP) []func(importer) error {
	order := r.PlanOptions.Order
	layerOf := func(category Category) string {
		for _, e := range r.Spec.Architecture.Catalog {
			if e.Category == string(category) {
				return e.Layer
			}
		}
		return ""
	}
	attention, moe := layerOf(Attention), layerOf(MoE)
	return []func(importer) error{
		func(add importer) error {
			for _, row := range tp.Dense {
				shot := denseShot(row.Tokens)
				if err := add(&shot, row.Layer, row.TimeUS, nil); err != nil {
					return err
				}
			}
			for _, row := range tp.PerSequence {
				shot := sequenceShot(row.Sequences)
				if err := add(&shot, row.Layer, row.TimeUS, nil); err != nil {
					return err
				}
			}
			return nil
		},
		func(add importer) error {
			for _, row := range tp.Attention {
				shot := attentionShot(AttentionPoint{row.PrefillChunk, row.KVPrefill, row.NDecode, row.KVDecode}, order)
				if err := add(&shot, attention, row.TimeUS, nil); err != nil {
					return err
				}
			}
			for _, row := range tp.MoE {
				shot := moeShot(row.Tokens, row.ActivatedExperts)
				if err := add(&shot, moe, row.TimeUS, nil); err != nil {
					return err
				}
			}
			return nil
		},
		func(add importer) error {
			for i := range tp.Skew {
				row := &tp.Skew[i]
				c := SkewCase{
					N: row.N, NB: row.NB, Ratio: row.Ratio, Skew: row.Skew, PC: row.PC, KP: row.KP,
					KVS: row.KVS, KVBig: row.KVBig, KVMean: row.KVMean,
				}
				shots := c.Shots(order)
				for j, us := range []float64{row.TMeanUS, row.TMaxUS, row.TSkewUS} {
					var alpha *float64
					if j == 2 && row.HasAlpha {
						alpha = &row.Alpha
					}
					if err := add(&shots[j], attention, us, alpha); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

// leastShared is how many batches skew.csv and attention.csv must share before
// their ratio counts against what meta.yaml says.
const leastShared = 20

// noteStatistic finds what the skew times of the bundle's degrees are, so that
// new ones become the same. Once measured beside, meta.yaml says it; one that is
// silent is LLMServingSim's, whose times are sums.
func (r *runner) noteStatistic(old *perfio.Bundle) error {
	r.sumsOf = 0
	said := old.Meta.Text("skew_statistic")
	hasSkew := slices.ContainsFunc(old.TPs, func(tp perfio.TP) bool { return len(tp.Skew) > 0 })
	if said == perfio.SkewMean || said == "" && !hasSkew || r.degree.engine.Origin == Replayed {
		return nil // a replay's are what its source says
	}
	runs := old.Meta.SkewRuns()
	for i := range old.TPs {
		tp := &old.TPs[i]
		if said != "" && runs > 0 || len(tp.Skew) == 0 {
			continue
		}
		found := sweep.Compare(old.Meta, tp.Attention, tp.Skew)
		if !found.Known() || found.From == sweep.FromShared && found.Shared < leastShared {
			continue
		}
		if runs == 0 {
			runs = found.Factor
		}
		if found.Factor != runs {
			return fmt.Errorf("%s: tp%d: found times %d times those of attention.csv, expected %d, which new rows would be; meta.yaml is to say which: skew_statistic, and of sums skew_sum_of",
				filepath.Join(r.Dir, fmt.Sprintf("tp%d", tp.Degree), perfio.SkewFile), tp.Degree, found.Factor, runs)
		}
	}
	if runs == 0 && hasSkew {
		return fmt.Errorf("%s: skew_statistic: found sums of an unknown number of runs, expected skew_sum_of or measurement_iterations, by which new rows of %s are to be multiplied",
			filepath.Join(r.Dir, perfio.MetaFile), perfio.SkewFile)
	}
	r.sumsOf = max(runs, 1)
	return nil
}

// compareMeta holds what meta.yaml says of an earlier measurement's
// environment against the engine's.
func (r *runner) compareMeta(m *perfio.Meta) error {
	e := r.degree.engine
	var list []Difference
	compare := func(key, was, now string) {
		if was != "" && now != "" && was != now {
			list = append(list, Difference{key, was, now})
		}
	}
	compare("gpu", m.GPU(), e.GPU)
	compare("vllm_version", m.VLLMVersion(), e.VLLMVersion)
	compare("cuda_version", m.CUDAVersion(), e.CUDAVersion)
	compare("attention_backend", m.AttentionBackend(), e.AttentionBackend)
	compare("model", m.Model(), r.Spec.Model.ID)
	compare("variant", m.Variant(), r.Variant)
	compare("driver", m.Text("driver"), r.description.Name)
	if m.Synthetic() != (e.Origin == Synthetic) {
		compare("origin", m.Origin(), string(e.Origin))
	}
	if e.Origin != Replayed { // its meta.yaml says the source's order, which the run's does not change
		compare("order", m.Text("order"), string(r.PlanOptions.Order))
	}
	if n := m.Limits().BlockSize; n > 0 {
		compare("block_size", strconv.Itoa(n), strconv.Itoa(e.Limits.BlockSize))
	}
	if len(list) == 0 {
		return nil
	}
	problem := &EnvironmentError{TP: r.degree.tp, Differences: list}
	if r.OnChange == StopOnChange {
		return problem
	}
	r.warn("%v\nits rows are kept beside new ones", problem)
	return nil
}
