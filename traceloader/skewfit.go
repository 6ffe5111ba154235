package traceloader

import (
	"fmt"
	"math"

	"github.com/layerprof/layerprof/perfio"
)

// bucketAxis is one axis of the skew fit's buckets. Label i ends at bins[i+1],
// which belongs to it.
type bucketAxis struct {
	bins   []float64
	labels []string
}

type bucketAxes struct{ n, rate, kvBig, kp bucketAxis }

func newBucketAxes(a *perfio.BucketAxes) (bucketAxes, error) {
	out := bucketAxes{
		n: bucketAxis{a.NBins, a.NLabels}, rate: bucketAxis{a.SkewRateBins, a.SkewRateLabels},
		kvBig: bucketAxis{a.KVBigBins, a.KVBigLabels}, kp: bucketAxis{a.KPBins, a.KPLabels},
	}
	for _, x := range [...]struct {
		name string
		axis bucketAxis
	}{{"n", out.n}, {"skew_rate", out.rate}, {"kv_big", out.kvBig}, {"kp", out.kp}} {
		if bins, labels := len(x.axis.bins), len(x.axis.labels); labels == 0 || bins <= labels {
			return out, fmt.Errorf("meta.yaml: skew_fit.bucket_axes.%s_bins: found %d bins for %d labels, expected one bin more than labels", x.name, bins, labels)
		}
		for _, b := range x.axis.bins {
			if math.IsNaN(b) {
				return out, fmt.Errorf("meta.yaml: skew_fit.bucket_axes.%s_bins: found NaN, expected a number", x.name)
			}
		}
	}
	return out, nil
}

// newAlphaTable bakes one tp's alphas, in the order of the rules: no fit or a
// disabled one corrects nothing, a degree without an entry has the block's
// default, an inline table wins over the file that bucket_table names.
func newAlphaTable(m *perfio.Meta, tp *perfio.TP, o *Options, warn func(string, ...any)) (*alphaTable, error) {
	if m == nil || m.Root == nil {
		return &alphaTable{fixed: true}, nil
	}
	fit := m.SkewFit()
	if fit == nil || !fit.Enabled {
		return &alphaTable{fixed: true}, nil
	}
	e := fit.Entry(tp.Degree)
	if e == nil || emptyEntry(e) {
		return fixedAlpha(fit.AlphaDefault)
	}
	inline := len(e.AlphaByBucket) > 0
	if !inline && e.BucketTable != "" && tp.SkewFit == nil {
		warn("%s is missing, alpha_default %v stands for all buckets", e.BucketTable, e.AlphaDefault)
	}
	if !inline && (e.BucketTable == "" || len(tp.SkewFit) == 0) {
		return fixedAlpha(e.AlphaDefault)
	}
	if err := checkAlpha("alpha_default", e.AlphaDefault); err != nil {
		return nil, err
	}
	axes, err := newBucketAxes(fit.AxesFor(tp.Degree))
	if err != nil {
		return nil, err
	}
	if inline {
		for key, alpha := range e.AlphaByBucket {
			if err := checkAlpha("alpha_by_bucket: "+key, alpha); err != nil {
				return nil, err
			}
		}
		return bakeKeys(e.AlphaByBucket, axes, e.AlphaDefault)
	}
	for i := range tp.SkewFit {
		if err := checkAlpha("alpha", tp.SkewFit[i].Alpha); err != nil {
			return nil, fmt.Errorf("row %d: %w", i+1, err)
		}
	}
	if a, err := bakeRows(tp.SkewFit, axes, e.AlphaDefault); a != nil || err != nil {
		return a, err
	}
	byKey, err := rowsByKey(tp.SkewFit, o, warn)
	if err != nil {
		return nil, err
	}
	return bakeKeys(byKey, axes, e.AlphaDefault)
}

func rowsByKey(rows []perfio.SkewFitRow, o *Options, warn func(string, ...any)) (map[string]float64, error) {
	byKey := make(map[string]float64, len(rows))
	for i := range rows {
		key := rows[i].Key()
		if _, again := byKey[key]; !again {
			byKey[key] = rows[i].Alpha
			continue
		}
		if !o.Lenient {
			return nil, fmt.Errorf("row %d: found %s again, expected each bucket once", i+1, key)
		}
		warn("row %d: found %s again, the first is taken", i+1, key)
	}
	return byKey, nil
}

// emptyEntry says whether nothing is written in an entry, which then counts as
// none.
func emptyEntry(e *perfio.TPFit) bool {
	return !e.HasAlphaDefault && e.Axes == nil && e.BucketTable == "" && len(e.AlphaByBucket) == 0 && e.Method == "" && e.NSamples == 0
}

func fixedAlpha(v float64) (*alphaTable, error) {
	return &alphaTable{fixed: true, value: v}, checkAlpha("alpha_default", v)
}

func checkAlpha(field string, v float64) error {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Errorf("%s: found %v, expected a finite number", field, v)
	}
	return nil
}
