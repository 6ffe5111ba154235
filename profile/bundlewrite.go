package profile

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/internal/atomicfile"
	"github.com/layerprof/layerprof/perfio"
)

// ValidationFile holds random batches that no fit may use, in the format of
// batches.jsonl and beside it.
const ValidationFile = "validation.jsonl"

// write derives the current degree's tables from the journal and replaces them
// and meta.yaml on disk, each file atomically.
func (r *runner) write() error {
	d := r.degree
	if d == nil || d.tasks == nil {
		return nil
	}
	if r.Shard.Count > 0 {
		d.written = true // the tables take all shards
		return nil
	}
	old, err := r.readBundle()
	if err != nil {
		return err
	}
	drift := newDriftModel(&r.journal.index, d.envs, d.tp, r.DriftThreshold)
	v := &deriver{
		index: &r.journal.index, envs: d.envs, tp: d.tp, share: r.PlanOptions.ShareRepeats, drift: drift,
		arch: r.Spec.Architecture, skewFactor: r.skewFactor(),
	}
	v.derive(&d.plan)
	tables := &v.tables
	if had := old.TP(d.tp); had != nil && d.keepRows {
		keepOtherRows(tables, had)
	}
	r.copyStable(tables, old)
	sortTables(tables)
	if len(tables.Dense)+len(tables.PerSequence)+len(tables.Attention)+len(tables.MoE)+len(tables.Skew) == 0 {
		return nil // a folder without a table is no bundle
	}
	if len(tables.Skew) > 0 && !r.SkipFit {
		fit, err := FitSkew(roundedSkew(tables.Skew))
		switch {
		case err == nil:
			tables.SkewFit = fit.Rows
			d.fit = fit
		case !errors.Is(err, ErrNoSkewSamples):
			return err
		}
	}
	if err := perfio.WriteTP(r.Dir, tables); err != nil {
		return err
	}
	if len(v.validation) > 0 {
		name := filepath.Join(r.Dir, fmt.Sprintf("tp%d", d.tp), ValidationFile)
		write := func(w io.Writer) error { return perfio.WriteBatches(w, v.validation) }
		if err := atomicfile.Write(name, write); err != nil {
			return err
		}
	}
	if err := r.writeMeta(old, drift); err != nil {
		return err
	}
	d.written = true
	r.emit(Event{Kind: EventWrote})
	return nil
}

// metaOnDisk reads the folder's meta.yaml; nil where there is none.
func (r *runner) metaOnDisk() (*perfio.Meta, error) {
	name := filepath.Join(r.Dir, perfio.MetaFile)
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	meta, err := perfio.ParseMeta(f, name)
	return meta, errors.Join(err, f.Close())
}

// readBundle reads what the folder holds already: an empty Bundle if that is
// nothing, one without tables if that is meta.yaml alone.
func (r *runner) readBundle() (*perfio.Bundle, error) {
	meta, err := r.metaOnDisk()
	if err != nil {
		return nil, err
	}
	if meta == nil {
		return &perfio.Bundle{}, nil
	}
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "tp") && e.IsDir() {
			return perfio.OpenBundle(r.Dir, perfio.Lenient())
		}
	}
	return &perfio.Bundle{Dir: r.Dir, Meta: meta}, nil
}

func (r *runner) writeMeta(old *perfio.Bundle, drift *driftModel) error {
	d := r.degree
	degrees := []int{d.tp}
	var fits []perfio.TPFit
	addFit := func(tp int, fit *SkewFit) {
		summary := fit.Summary
		summary.Degree, summary.BucketTable = tp, fmt.Sprintf("tp%d/%s", tp, perfio.SkewFitFile)
		fits = append(fits, summary)
	}
	for i := range old.TPs {
		tp := &old.TPs[i]
		degrees = append(degrees, tp.Degree)
		if len(tp.Skew) > 0 && tp.Degree != d.tp && !r.SkipFit {
			// Fitted again from its table: a fit is a function of the rows alone.
			if fit, err := FitSkew(tp.Skew); err == nil {
				addFit(tp.Degree, fit)
			}
		}
	}
	if d.fit != nil {
		addFit(d.tp, d.fit)
	}
	slices.SortFunc(fits, func(a, b perfio.TPFit) int { return a.Degree - b.Degree })
	fit, err := SkewFitNode(fits)
	if err != nil {
		return err
	}
	slices.Sort(degrees)
	missing, infeasible := 0, 0
	for _, t := range d.tasks {
		switch {
		case t.infeasible:
			infeasible++
		case t.aside || r.missing(t) > 0:
			missing++
		}
	}
	node := r.metaNode(old.Meta, slices.Compact(degrees), d, drift, fit, missing, infeasible)
	meta := &perfio.Meta{Root: node}
	return atomicfile.Write(filepath.Join(r.Dir, perfio.MetaFile), func(w io.Writer) error {
		return perfio.WriteMeta(w, meta)
	})
}

// skewFactor is what new skew times are multiplied by to stand in the same file
// as those that it has.
func (r *runner) skewFactor() float64 {
	if r.sumsOf > 0 && r.degree.engine.Origin != Replayed {
		return float64(r.sumsOf)
	}
	return 1
}

// copyStable takes the rows of layers that do not change with the degree from
// the lowest degree there is, also in place of some that a run of this degree
// alone measured: an emulated rank runs them on other shapes. A rank of a real
// degree runs them as they are, so there they are its own. What a replayed
// bundle has stays as it is there.
func (r *runner) copyStable(tables *perfio.TP, old *perfio.Bundle) {
	if len(old.TPs) == 0 || old.TPs[0].Degree >= tables.Degree || r.Spec.TPMode == RealTP {
		return
	}
	from := &old.TPs[0]
	replayed := r.degree.engine.Origin == Replayed
	for _, e := range r.Spec.Architecture.Catalog {
		if !e.TPStable {
			continue
		}
		switch Category(e.Category) {
		case Dense:
			tables.Dense = takeLayer(tables.Dense, from.Dense, replayed, func(row perfio.DenseRow) bool { return row.Layer == e.Layer })
		case PerSequence:
			tables.PerSequence = takeLayer(tables.PerSequence, from.PerSequence, replayed, func(row perfio.SequenceRow) bool { return row.Layer == e.Layer })
		}
	}
}

// takeLayer gives rows with those of a layer taken from another degree, if that
// has any; keep leaves rows that have some of their own.
func takeLayer[R any](rows, from []R, keep bool, ofLayer func(R) bool) []R {
	if !slices.ContainsFunc(from, ofLayer) || keep && slices.ContainsFunc(rows, ofLayer) {
		return rows
	}
	rows = slices.DeleteFunc(rows, ofLayer)
	for _, row := range from {
		if ofLayer(row) {
			rows = append(rows, row)
		}
	}
	return rows
}

// keepOtherRows adds the rows of an earlier bundle that the plan does not have.
func keepOtherRows(tables, had *perfio.TP) {
	tables.Dense = addMissing(tables.Dense, had.Dense, func(r perfio.DenseRow) any { return [2]any{r.Layer, r.Tokens} })
	tables.PerSequence = addMissing(tables.PerSequence, had.PerSequence, func(r perfio.SequenceRow) any { return [2]any{r.Layer, r.Sequences} })
	tables.Attention = addMissing(tables.Attention, had.Attention, func(r perfio.AttentionRow) any {
		return [4]int{r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode}
	})
	tables.MoE = addMissing(tables.MoE, had.MoE, func(r perfio.MoERow) any { return [2]int{r.Tokens, r.ActivatedExperts} })
	tables.Skew = mergeSkew(tables.Skew, had.Skew)
	tables.Collectives = addMissing(tables.Collectives, had.Collectives, func(r perfio.CollectiveRow) any {
		return [4]any{r.Layer, r.Collective, r.Tokens, r.Bytes}
	})
	if tables.Batches == nil {
		tables.Batches = had.Batches
	}
}

// mergeSkew puts the plan's rows first and the others behind them; where an
// earlier file has all of them, its order stays, which is that of a larger plan.
func mergeSkew(rows, had []perfio.SkewRow) []perfio.SkewRow {
	byKey := make(map[any]perfio.SkewRow, len(rows))
	for _, row := range rows {
		byKey[skewRowKey(row)] = row
	}
	merged, found := slices.Clone(had), 0
	for i, row := range merged {
		if now, ok := byKey[skewRowKey(row)]; ok {
			merged[i] = now
			found++
		}
	}
	if found == len(byKey) {
		return merged
	}
	return addMissing(rows, had, skewRowKey)
}

func skewRowKey(r perfio.SkewRow) any {
	return skewKey{r.N, r.NB, r.PC, r.KP, r.KVS, r.Skew}
}

func addMissing[T any](rows, others []T, key func(T) any) []T {
	if len(others) == 0 {
		return rows
	}
	have := make(map[any]bool, len(rows))
	for _, row := range rows {
		have[key(row)] = true
	}
	for _, row := range others {
		if !have[key(row)] {
			rows = append(rows, row)
		}
	}
	return rows
}

func sortTables(t *perfio.TP) {
	slices.SortStableFunc(t.Dense, func(a, b perfio.DenseRow) int {
		return cmp.Or(cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Tokens, b.Tokens))
	})
	slices.SortStableFunc(t.PerSequence, func(a, b perfio.SequenceRow) int {
		return cmp.Or(cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Sequences, b.Sequences))
	})
	slices.SortStableFunc(t.Attention, func(a, b perfio.AttentionRow) int {
		return slices.Compare(
			[]int{a.PrefillChunk, a.KVPrefill, a.NDecode, a.KVDecode}, []int{b.PrefillChunk, b.KVPrefill, b.NDecode, b.KVDecode})
	})
	slices.SortStableFunc(t.MoE, func(a, b perfio.MoERow) int {
		return cmp.Or(cmp.Compare(a.Tokens, b.Tokens), cmp.Compare(a.ActivatedExperts, b.ActivatedExperts))
	})
}

// roundedSkew is the rows as the file will have them, which is what a fit by
// anybody who reads it goes by.
func roundedSkew(rows []perfio.SkewRow) []perfio.SkewRow {
	out := slices.Clone(rows)
	for i := range out {
		for _, us := range []*float64{&out[i].TMeanUS, &out[i].TMaxUS, &out[i].TSkewUS} {
			*us = perfio.RoundDecimals(*us, 3)
		}
	}
	return out
}
