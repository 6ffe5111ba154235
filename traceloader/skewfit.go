package traceloader

import (
	"errors"
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

// alphaSource is what the fit says of one tp.
type alphaSource struct {
	byKey        map[string]float64 // empty: the default stands for all buckets
	alphaDefault float64
	axes         *perfio.BucketAxes
}

// newAlphaSource follows the order of the rules: no fit or a disabled one
// corrects nothing, a degree without an entry has the block's default, an
// inline table wins over the file that bucket_table names.
func newAlphaSource(m *perfio.Meta, tp *perfio.TP, o *Options, warn func(string, ...any)) (alphaSource, error) {
	if m == nil || m.Root == nil {
		return alphaSource{}, nil
	}
	fit := m.SkewFit()
	if fit == nil || !fit.Enabled {
		return alphaSource{}, nil
	}
	e := fit.Entry(tp.Degree)
	if e == nil || emptyEntry(e) {
		return alphaSource{alphaDefault: fit.AlphaDefault}, nil
	}
	s := alphaSource{byKey: e.AlphaByBucket, alphaDefault: e.AlphaDefault, axes: fit.AxesFor(tp.Degree)}
	if len(s.byKey) > 0 || e.BucketTable == "" {
		return s, nil
	}
	if tp.SkewFit == nil {
		warn("%s is missing, alpha_default %v stands for all buckets", e.BucketTable, e.AlphaDefault)
	}
	s.byKey = make(map[string]float64, len(tp.SkewFit))
	for i := range tp.SkewFit {
		r := &tp.SkewFit[i]
		if math.IsNaN(r.Alpha) || math.IsInf(r.Alpha, 0) {
			return s, fmt.Errorf("row %d: alpha: found %v, expected a finite number", i+1, r.Alpha)
		}
		key := r.Key()
		if _, again := s.byKey[key]; again {
			if !o.Lenient {
				return s, fmt.Errorf("row %d: found %s again, expected each bucket once", i+1, key)
			}
			warn("row %d: found %s again, the first is taken", i+1, key)
			continue
		}
		s.byKey[key] = r.Alpha
	}
	return s, nil
}

// emptyEntry says whether nothing is written in an entry, which then counts as
// none.
func emptyEntry(e *perfio.TPFit) bool {
	return !e.HasAlphaDefault && e.Axes == nil && e.BucketTable == "" && len(e.AlphaByBucket) == 0 && e.Method == "" && e.NSamples == 0
}

// newAlphaTable bakes one tp's alphas.
func newAlphaTable(m *perfio.Meta, tp *perfio.TP, o *Options, warn func(string, ...any)) (*alphaTable, error) {
	s, err := newAlphaSource(m, tp, o, warn)
	if err != nil {
		return nil, err
	}
	if math.IsNaN(s.alphaDefault) || math.IsInf(s.alphaDefault, 0) {
		return nil, errors.New("meta.yaml: skew_fit: alpha_default: expected a finite number")
	}
	if len(s.byKey) == 0 {
		return &alphaTable{fixed: true, value: s.alphaDefault}, nil
	}
	axes, err := newBucketAxes(s.axes)
	if err != nil {
		return nil, err
	}
	return bakeAlphas(s.byKey, axes, s.alphaDefault)
}
