package lint

import (
	"fmt"
	"math"
	"strconv"

	"github.com/layerprof/layerprof/internal/sweep"
	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
)

// Limits of the rules on the skew sweep; in brackets what measured bundles show.
const (
	maxBelowMean  = 0.60 // t_max of t_mean, a single row (0.74: FlashAttention-3 splits the longer histories)
	maxBelowShare = 0.05 // rows with t_max below 0.97 of t_mean (0.015)
	sweepOffset   = 0.04 // skew.csv against attention.csv (0.004)
	sweepShared   = 20   // shapes that the comparison needs
	fewSamples    = 8    // rows of a bucket whose alpha may be off
	wildAlpha     = 3.0  // between the mean and the largest alpha is 0 to 1; noise adds to that where both are near
	loneShare     = 0.10 // buckets with one row (0.033)
)

var skewRules = []Rule{
	{"t-max-below-mean", Error, "skew.csv: decodes at the largest length are faster than at the mean length", checkMaxBelowMean},
	{"skew-statistic", Error, "skew.csv holds sums where meta.yaml says means, or the reverse, or it is not known which", checkStatistic},
	{"sweep-offset", Warning, "skew.csv and attention.csv differ where both hold the same batch", checkSweeps},
	{"few-samples", Warning, "alphas that rest on too few rows to be right", checkFewSamples},
	{"stale-fit", Warning, "skew_fit.csv is not the fit of this skew.csv", checkStaleFit},
}

func checkMaxBelowMean(s *subject, r *reporter) {
	for _, tp := range s.TPs {
		var found []*tidy.Row
		worst, below := 1.0, 0
		for i, row := range tp.Skew {
			ratio := row.TMaxUS / row.TMeanUS
			if ratio < 0.97 {
				below++
			}
			if ratio >= maxBelowMean {
				continue
			}
			found = append(found, &tidy.Row{Key: tidy.Key{TP: tp.Degree, Table: "skew"}, Line: i + 2})
			if ratio < worst {
				worst = ratio
				found[0], found[len(found)-1] = found[len(found)-1], found[0]
			}
		}
		switch {
		case len(found) > 0:
			r.rows(found, "tp%d skew: t_max_us is below %.2f of t_mean_us in %d of %d rows, at worst %.2f", tp.Degree, maxBelowMean, len(found), len(tp.Skew), worst)
		case float64(below) > maxBelowShare*float64(len(tp.Skew)) && below >= 5:
			r.place(fmt.Sprintf("tp%d/%s", tp.Degree, perfio.SkewFile), 0, r.again(tp.Degree, "skew", nil),
				"tp%d skew: t_max_us is below t_mean_us in %d of %d rows", tp.Degree, below, len(tp.Skew))
		}
	}
}

func checkStatistic(s *subject, r *reporter) {
	for _, tp := range s.TPs {
		ratios := sweep.Compare(s.Meta, tp.Attention, tp.Skew)
		if !ratios.Known() && len(tp.Skew) > 0 && len(tp.Attention) > 0 {
			r.place(fmt.Sprintf("tp%d/%s", tp.Degree, perfio.SkewFile), 0, "", "tp%d skew: %s: the accurate rules do not use it", tp.Degree, ratios)
			continue
		}
		want := s.Meta.SkewRuns()
		if ratios.Shared < sweepShared || want == 0 {
			continue
		}
		if ratios.Factor != want {
			r.place(fmt.Sprintf("tp%d/%s", tp.Degree, perfio.SkewFile), 0, "", "tp%d skew: times are %d times those of attention.csv (%d shared batches), expected %d: meta.yaml says %s",
				tp.Degree, ratios.Factor, ratios.Shared, want, s.Meta.SkewStatistic())
		}
	}
}

func checkSweeps(s *subject, r *reporter) {
	for _, tp := range s.TPs {
		ratios := sweep.Compare(s.Meta, tp.Attention, tp.Skew)
		if ratios.Shared < sweepShared {
			continue
		}
		for _, one := range []struct {
			regime string
			ratio  float64
		}{{"pure", ratios.Pure}, {"mixed", ratios.Mixed}} {
			if off := one.ratio/float64(ratios.Factor) - 1; math.Abs(off) > sweepOffset {
				r.place(fmt.Sprintf("tp%d/%s", tp.Degree, perfio.SkewFile), 0, r.again(tp.Degree, "skew", nil),
					"tp%d skew: %s batches take %+.1f%% against attention.csv (%d shared batches): the device was in another state",
					tp.Degree, one.regime, 100*off, ratios.Shared)
				break
			}
		}
	}
}

func checkFewSamples(s *subject, r *reporter) {
	for _, tp := range s.TPs {
		var wild []*tidy.Row
		worst := perfio.SkewFitRow{}
		lone := 0
		for i, row := range tp.SkewFit {
			if row.NSamples <= 1 {
				lone++
			}
			if math.Abs(row.Alpha) <= wildAlpha || row.NSamples >= fewSamples {
				continue
			}
			wild = append(wild, &tidy.Row{Key: tidy.Key{TP: tp.Degree, Table: "skew_fit"}, Line: i + 2})
			if math.Abs(row.Alpha) > math.Abs(worst.Alpha) {
				worst = row
				wild[0], wild[len(wild)-1] = wild[len(wild)-1], wild[0]
			}
		}
		again := ""
		if factor := finerKVS(s.Meta, &tp); factor > 0 { // more cases, not the same ones again
			again = r.goOn("skew", " --skew-kvs-factor "+strconv.FormatFloat(factor, 'g', -1, 64))
		}
		if len(wild) > 0 {
			r.rows(wild, "tp%d skew_fit: %d of %d buckets have an alpha beyond ±%g on fewer than %d rows, at worst %g on %d",
				tp.Degree, len(wild), len(tp.SkewFit), wildAlpha, fewSamples, worst.Alpha, worst.NSamples)
			r.last().Again = again
		}
		if float64(lone) > loneShare*float64(len(tp.SkewFit)) && lone >= 5 {
			r.place(fmt.Sprintf("tp%d/%s", tp.Degree, perfio.SkewFitFile), 0, again,
				"tp%d skew_fit: %d of %d buckets rest on a single row", tp.Degree, lone, len(tp.SkewFit))
		}
	}
}

// finestKVS is the least factor between two lengths worth measuring.
const finestKVS = 1.05

// finerKVS is the first factor, each the root of the one before, beginning with
// meta.yaml's, with which the sweep has a short length between those that
// skew.csv has; 0: none above finestKVS. By a root the lengths that there are
// stay in the sweep.
func finerKVS(m *perfio.Meta, tp *perfio.TP) float64 {
	factor, err := strconv.ParseFloat(m.Text("skew_profile", "factors", "kvs"), 64)
	if err != nil || !(factor > 1) || factor > 1e6 {
		factor = 2 // which is the default
	}
	has, longest := map[int]bool{}, 0
	for _, row := range tp.Skew {
		has[row.KVS] = true
		longest = max(longest, row.KVS)
	}
	for {
		factor = perfio.RoundDecimals(math.Sqrt(factor), 8)
		if factor < finestKVS {
			return 0
		}
		for kvs := 128.0; kvs < float64(longest) || len(has) == 0; kvs *= factor {
			if !has[int(math.RoundToEven(kvs))] {
				return factor
			}
		}
	}
}

func checkStaleFit(s *subject, r *reporter) {
	for _, tp := range s.TPs {
		if len(tp.SkewFit) == 0 || len(tp.Skew) == 0 {
			continue
		}
		samples, with := 0, 0
		for _, row := range tp.SkewFit {
			samples += row.NSamples
		}
		for _, row := range tp.Skew {
			if row.HasAlpha {
				with++
			}
		}
		if samples != with {
			r.place(fmt.Sprintf("tp%d/%s", tp.Degree, perfio.SkewFitFile), 0, r.fitAgain(),
				"tp%d skew_fit: its buckets hold %d rows, skew.csv has %d with an alpha", tp.Degree, samples, with)
		}
	}
}
