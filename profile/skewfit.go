package profile

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/layerprof/layerprof/perfio"
)

// SkewFit is the fit of one tp's skew cases: a table of alphas by bucket, and
// what meta.yaml says of it.
type SkewFit struct {
	// Summary has no Degree and no BucketTable yet: only the bundle knows them.
	// Its numbers are rounded to 4 decimals. AlphaDefault is fitted on all the
	// cases; the errors are those of t_skew, |predicted/measured - 1|, and
	// SignedMean the mean of predicted/measured - 1.
	Summary perfio.TPFit
	Rows    []perfio.SkewFitRow // in the order of skew_fit.csv
}

// skewFitMethod names the fit in meta.yaml.
const skewFitMethod = "per_bucket_wls_5axis"

const (
	overflowN  = 1_000_000
	overflowKV = 1_000_000_000
)

// ErrNoSkewSamples is FitSkew's error where no case has an alpha.
var ErrNoSkewSamples = errors.New("skew.csv: no case has an alpha, nothing to fit")

// FitSkew fits the skew cases of one tp: in each bucket the alpha that least
// squares give for t_skew = t_mean + alpha*(t_max - t_mean).
func FitSkew(rows []perfio.SkewRow) (*SkewFit, error) {
	axes := newSkewAxes(rows)
	type bucket struct{ pc, n, rate, kvBig, kp int }
	buckets := make(map[bucket]*leastSquares)
	var all leastSquares
	keys := make([]bucket, len(rows))
	for i, row := range rows {
		if !row.HasAlpha {
			continue
		}
		key := bucket{
			pc:    row.PC,
			n:     perfio.BinIndex(axes.NBins, float64(row.N)),
			rate:  perfio.BinIndex(axes.SkewRateBins, min(max(skewRate(row), 0), 1)),
			kvBig: perfio.BinIndex(axes.KVBigBins, float64(row.KVBig)),
			kp:    perfio.BinIndex(axes.KPBins, float64(row.KP)),
		}
		keys[i] = key
		if buckets[key] == nil {
			buckets[key] = &leastSquares{}
		}
		buckets[key].add(row)
		all.add(row)
	}
	if all.n == 0 {
		return nil, ErrNoSkewSamples
	}
	fit := &SkewFit{Summary: perfio.TPFit{
		Method: skewFitMethod, Axes: axes, NSamples: all.n, AlphaDefault: round4(all.alpha()), HasAlphaDefault: true,
	}}
	for key, sums := range buckets {
		fit.Rows = append(fit.Rows, perfio.SkewFitRow{
			PC: key.pc, NLabel: axes.NLabels[key.n], SkewRateLabel: axes.SkewRateLabels[key.rate],
			KVBigLabel: axes.KVBigLabels[key.kvBig], KPLabel: axes.KPLabels[key.kp],
			Alpha: round4(sums.alpha()), NSamples: sums.n,
		})
	}
	slices.SortFunc(fit.Rows, func(a, b perfio.SkewFitRow) int {
		return cmp.Or(cmp.Compare(a.PC, b.PC), cmp.Compare(a.NLabel, b.NLabel),
			cmp.Compare(a.SkewRateLabel, b.SkewRateLabel), cmp.Compare(a.KVBigLabel, b.KVBigLabel),
			cmp.Compare(a.KPLabel, b.KPLabel))
	})
	errs := make([]float64, 0, all.n)
	sum := 0.0
	for i, row := range rows {
		if !row.HasAlpha {
			continue
		}
		predicted := row.TMeanUS + float64(round4(buckets[keys[i]].alpha())*(row.TMaxUS-row.TMeanUS))
		e := (predicted - row.TSkewUS) / row.TSkewUS
		if math.IsNaN(e) || math.IsInf(e, 0) {
			return nil, fmt.Errorf("skew.csv: row %d: t_skew_us %v cannot be compared", i+1, row.TSkewUS)
		}
		sum += e
		errs = append(errs, math.Abs(e))
	}
	slices.Sort(errs)
	fit.Summary.RelErrP50 = round4(quantile(errs, 0.5))
	fit.Summary.RelErrP90 = round4(quantile(errs, 0.9))
	fit.Summary.RelErrP99 = round4(quantile(errs, 0.99))
	fit.Summary.SignedMean = round4(sum / float64(len(errs)))
	return fit, nil
}

// leastSquares sums what alpha needs.
type leastSquares struct {
	n        int
	num, den float64
}

func (s *leastSquares) add(row perfio.SkewRow) {
	dm, ds := row.TMaxUS-row.TMeanUS, row.TSkewUS-row.TMeanUS
	// The conversions keep the compiler from fusing, which would change digits.
	s.num += float64(dm * ds)
	s.den += float64(dm * dm)
	s.n++
}

func (s *leastSquares) alpha() float64 {
	if s.den == 0 {
		return 0
	}
	return s.num / s.den
}

func skewRate(row perfio.SkewRow) float64 {
	return float64(row.KVMean-row.KVS) / float64(max(1, row.KVBig-row.KVS))
}

// newSkewAxes takes the bins from the cases that were measured, fitted or not.
func newSkewAxes(rows []perfio.SkewRow) *perfio.BucketAxes {
	var ns, kps []int
	largest := 0
	for _, row := range rows {
		ns = append(ns, row.N)
		largest = max(largest, row.KVBig)
		if row.KP > 0 {
			kps = append(kps, row.KP)
		}
	}
	var edges []int
	for edge := 1024; edge <= largest; edge *= 4 {
		edges = append(edges, edge)
	}
	if len(edges) == 0 || largest > edges[len(edges)-1] {
		edges = append(edges, largest)
	}
	axes := perfio.DefaultBucketAxes() // for the skew rate's, which are fixed
	axes.NBins, axes.NLabels = skewBins("n", distinct(ns), overflowN)
	axes.KVBigBins, axes.KVBigLabels = skewBins("kvB", edges, overflowKV)
	axes.KPBins, axes.KPLabels = skewBins("kp", distinct(kps), overflowKV)
	axes.KPBins = append([]float64{-1}, axes.KPBins...)
	axes.KPLabels = append([]string{"kp=0"}, axes.KPLabels...)
	return axes
}

// skewBins has a bin up to each edge and one for what is above the last.
func skewBins(name string, edges []int, overflow float64) (bins []float64, labels []string) {
	bins = []float64{0}
	last := 0
	for _, edge := range edges {
		bins = append(bins, float64(edge))
		labels = append(labels, name+"<="+shortNumber(edge))
		last = edge
	}
	return append(bins, overflow), append(labels, name+">"+shortNumber(last))
}

func shortNumber(n int) string {
	if n > 0 && n%1024 == 0 {
		return strconv.Itoa(n/1024) + "k"
	}
	return strconv.Itoa(n)
}

func distinct(values []int) []int {
	slices.Sort(values)
	return slices.Compact(values)
}

// quantile interpolates linearly in sorted values, which are not empty.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := min(int(at), len(sorted)-2)
	if i < 0 {
		return sorted[0]
	}
	return sorted[i] + float64((at-float64(i))*(sorted[i+1]-sorted[i]))
}

func round4(v float64) float64 { return perfio.RoundDecimals(v, 4) }

// FitBundle fits the skew cases of each tp of the bundle in folder dir again and
// rewrites skew_fit.csv and meta.yaml's skew_fit block; nothing else changes. A
// tp without skew.csv keeps the entry it has. The fits are returned in ascending
// order of degree.
func FitBundle(dir string) ([]perfio.TPFit, error) {
	bundle, err := perfio.OpenBundle(dir, perfio.Only(perfio.SkewFile))
	if err != nil {
		return nil, err
	}
	fits, tables, err := fitDegrees(bundle)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	node, err := SkewFitNode(fits)
	if err != nil {
		return nil, err
	}
	meta := bundle.Meta.Clone()
	if err := meta.Set(node, "skew_fit"); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, perfio.MetaFile), err)
	}
	return fits, perfio.WriteBundle(dir, &perfio.Bundle{Meta: meta, TPs: tables})
}

func fitDegrees(bundle *perfio.Bundle) (fits []perfio.TPFit, tables []perfio.TP, err error) {
	recorded := bundle.Meta.SkewFit()
	for _, tp := range bundle.TPs {
		if tp.Skew == nil {
			if old := recorded.Entry(tp.Degree); old != nil {
				if old.AlphaByBucket != nil {
					return nil, nil, fmt.Errorf("tp%d: has no skew.csv, and its fit in meta.yaml stands inline", tp.Degree)
				}
				kept := *old
				kept.Axes = recorded.AxesFor(tp.Degree)
				fits = append(fits, kept)
			}
			continue
		}
		fit, err := FitSkew(tp.Skew)
		if err != nil {
			return nil, nil, fmt.Errorf("tp%d: %w", tp.Degree, err)
		}
		fit.Summary.Degree = tp.Degree
		fit.Summary.BucketTable = fmt.Sprintf("tp%d/%s", tp.Degree, perfio.SkewFitFile)
		fits = append(fits, fit.Summary)
		tables = append(tables, perfio.TP{Degree: tp.Degree, SkewFit: fit.Rows})
	}
	if len(tables) == 0 {
		return nil, nil, errors.New("no tp folder has a skew.csv to fit")
	}
	return fits, tables, nil
}
