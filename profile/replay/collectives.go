package replay

import (
	"slices"

	"github.com/layerprof/layerprof/profile"
)

// collectives are those that the source has for a shot's tokens and sequences,
// n samples each. Where it has none of a layer there is none: their rows are
// made by the dense and per_sequence shots alone.
func (e *engine) collectives(shot *profile.Shot, n int) []profile.CollectiveResult {
	var out []profile.CollectiveResult
	for i := range e.spec.Architecture.Catalog {
		entry := &e.spec.Architecture.Catalog[i]
		count := shot.Tokens()
		if entry.Category == string(profile.PerSequence) {
			count = shot.Sequences()
		}
		for _, row := range e.tables.collectives[countKey{entry.Layer, count}] {
			out = append(out, profile.CollectiveResult{
				Layer: row.Layer, Kind: row.Collective, Rows: count, Bytes: row.Bytes, Ranks: row.Ranks, Calls: row.Calls,
				SamplesUS: slices.Repeat([]float64{row.TimeUS}, n), WaitUS: slices.Repeat([]float64{row.WaitUS}, n),
			})
		}
	}
	return out
}
