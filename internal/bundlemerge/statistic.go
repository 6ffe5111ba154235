package bundlemerge

import (
	"errors"
	"fmt"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// statistic are the keys of meta.yaml that say what the times of skew.csv are.
var statistic = []string{"skew_statistic", "skew_sum_of"}

// oneStatistic gives the parts with skew times as those of the first that has
// any, sums of so many runs or means. The parts themselves stay as they are.
// How many runs each sums up is known where they differ: sameSetup has seen to it.
func oneStatistic(parts []*perfio.Bundle) (same []*perfio.Bundle, notes []string, err error) {
	first := slices.IndexFunc(parts, hasSkew)
	if first < 0 {
		return parts, nil, nil
	}
	of := parts[first]
	runs := of.Meta.SkewRuns()
	for _, p := range parts {
		as := *p
		as.Meta = p.Meta.Clone()
		for _, key := range statistic {
			if value := of.Meta.Text(key); value == "" {
				as.Meta.Delete(key)
			} else {
				err = errors.Join(err, as.Meta.Set(of.Meta.Clone().Get(key), key))
			}
		}
		if was := p.Meta.SkewRuns(); was != runs && hasSkew(p) {
			as.TPs = slices.Clone(p.TPs)
			for i := range as.TPs {
				as.TPs[i].Skew = scaled(as.TPs[i].Skew, float64(runs)/float64(was))
			}
			notes = append(notes, fmt.Sprintf("%s: the times of skew.csv, %s, are taken as %s, which those of %s are", p.Dir, sumsOf(was), sumsOf(runs), of.Dir))
		}
		same = append(same, &as)
	}
	return same, notes, err
}

func sumsOf(runs int) string {
	if runs == 1 {
		return "means"
	}
	return fmt.Sprintf("sums of %d runs", runs)
}

// scaled multiplies the times; alpha, a ratio of them, stays.
func scaled(rows []perfio.SkewRow, by float64) []perfio.SkewRow {
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i].TMeanUS *= by
		rows[i].TMaxUS *= by
		rows[i].TSkewUS *= by
	}
	return rows
}
