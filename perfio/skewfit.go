package perfio

import (
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"
)

// SkewFit is the skew_fit block of meta.yaml.
type SkewFit struct {
	Enabled bool
	// AlphaDefault is the block's own, used for a degree without an entry.
	AlphaDefault    float64
	HasAlphaDefault bool
	// Axes is the block's bucket_axes, nil where it has none.
	Axes *BucketAxes
	// PerTP in ascending order of degree.
	PerTP []TPFit
}

// TPFit is the fit of one tensor-parallel degree.
type TPFit struct {
	Degree          int
	Method          string
	NSamples        int
	AlphaDefault    float64
	HasAlphaDefault bool
	// Axes is the entry's own bucket_axes, nil where it has none.
	Axes *BucketAxes
	// BucketTable is the table's path in the bundle's folder, "" where the file
	// names none.
	BucketTable string
	// AlphaByBucket is the table inline, by bucket key; it wins over the CSV.
	// nil where there is none.
	AlphaByBucket map[string]float64
	// RelErrP50 and the others are the fit's own errors, as recorded.
	RelErrP50, RelErrP90, RelErrP99, SignedMean float64
}

// BucketAxes are the bins of the skew table. A bin i covers the values up to
// Bins[i+1]; len(Labels) == len(Bins)-1.
type BucketAxes struct {
	NBins          []float64
	NLabels        []string
	SkewRateBins   []float64
	SkewRateLabels []string
	KVBigBins      []float64
	KVBigLabels    []string
	KPBins         []float64
	KPLabels       []string
}

// DefaultBucketAxes are the axes where meta.yaml has none. The slices are the
// caller's.
func DefaultBucketAxes() *BucketAxes {
	return &BucketAxes{
		NBins:          []float64{0, 2, 4, 8, 16, 32, 64, 128, 1000000},
		NLabels:        []string{"n<=2", "n<=4", "n<=8", "n<=16", "n<=32", "n<=64", "n<=128", "n>128"},
		SkewRateBins:   []float64{-0.01, 0.05, 0.15, 0.40, 0.70, 1.01},
		SkewRateLabels: []string{"sr<=5%", "sr<=15%", "sr<=40%", "sr<=70%", "sr>70%"},
		KVBigBins:      []float64{0, 1024, 4096, 16384, 1e9},
		KVBigLabels:    []string{"kvB<=1k", "kvB<=4k", "kvB<=16k", "kvB>16k"},
		KPBins:         []float64{-1, 0, 2048, 1e9},
		KPLabels:       []string{"kp=0", "kp<=2k", "kp>2k"},
	}
}

// BinIndex is the first i with value <= bins[i+1], else the last: the index of
// the value's label.
func BinIndex(bins []float64, value float64) int {
	for i := 1; i < len(bins); i++ {
		if value <= bins[i] {
			return i - 1
		}
	}
	return max(0, len(bins)-2)
}

// axis names one axis' keys in bucket_axes.
type axis struct {
	bins, labels string
	get          func(*BucketAxes) (*[]float64, *[]string)
}

var axes = []axis{
	{"n_bins", "n_labels", func(a *BucketAxes) (*[]float64, *[]string) { return &a.NBins, &a.NLabels }},
	{"skew_rate_bins", "skew_rate_labels", func(a *BucketAxes) (*[]float64, *[]string) { return &a.SkewRateBins, &a.SkewRateLabels }},
	{"kv_big_bins", "kv_big_labels", func(a *BucketAxes) (*[]float64, *[]string) { return &a.KVBigBins, &a.KVBigLabels }},
	{"kp_bins", "kp_labels", func(a *BucketAxes) (*[]float64, *[]string) { return &a.KPBins, &a.KPLabels }},
}

// SkewFit reads the block; nil where the file has none.
func (m *Meta) SkewFit() *SkewFit {
	n := m.Get("skew_fit")
	if isNull(n) || n.Kind != yaml.MappingNode {
		return nil
	}
	fit := &SkewFit{Axes: bucketAxes(child(n, "bucket_axes"))}
	fit.Enabled, _ = nodeBool(child(n, "enabled"))
	fit.AlphaDefault, fit.HasAlphaDefault = nodeFloat(child(n, "alpha_default"))
	perTP := child(n, "per_tp")
	if perTP == nil || perTP.Kind != yaml.MappingNode {
		return fit
	}
	for i := 0; i+1 < len(perTP.Content); i += 2 {
		degree, ok := degreeOf(perTP.Content[i].Value)
		entry := resolved(perTP.Content[i+1])
		if !ok || entry == nil || entry.Kind != yaml.MappingNode {
			continue // check has refused it
		}
		fit.PerTP = append(fit.PerTP, tpFit(degree, entry))
	}
	slices.SortStableFunc(fit.PerTP, func(a, b TPFit) int { return a.Degree - b.Degree })
	return fit
}

// Entry is the degree's entry, nil where there is none.
func (f *SkewFit) Entry(degree int) *TPFit {
	if f == nil {
		return nil
	}
	for i := range f.PerTP {
		if f.PerTP[i].Degree == degree {
			return &f.PerTP[i]
		}
	}
	return nil
}

// AxesFor are the axes that count for a degree: its entry's, else the block's,
// else the defaults.
func (f *SkewFit) AxesFor(degree int) *BucketAxes {
	if e := f.Entry(degree); e != nil && e.Axes != nil {
		return e.Axes
	}
	if f != nil && f.Axes != nil {
		return f.Axes
	}
	return DefaultBucketAxes()
}

func tpFit(degree int, n *yaml.Node) TPFit {
	t := TPFit{Degree: degree, Axes: bucketAxes(child(n, "bucket_axes"))}
	t.Method, _ = nodeText(child(n, "method"))
	t.NSamples, _ = nodeInt(child(n, "n_samples"))
	t.AlphaDefault, t.HasAlphaDefault = nodeFloat(child(n, "alpha_default"))
	t.BucketTable, _ = nodeText(child(n, "bucket_table"))
	t.RelErrP50, _ = nodeFloat(child(n, "rel_err_p50"))
	t.RelErrP90, _ = nodeFloat(child(n, "rel_err_p90"))
	t.RelErrP99, _ = nodeFloat(child(n, "rel_err_p99"))
	t.SignedMean, _ = nodeFloat(child(n, "signed_mean"))
	if inline := child(n, "alpha_by_bucket"); inline != nil && inline.Kind == yaml.MappingNode {
		t.AlphaByBucket = make(map[string]float64, len(inline.Content)/2)
		for i := 0; i+1 < len(inline.Content); i += 2 {
			if alpha, ok := nodeFloat(resolved(inline.Content[i+1])); ok {
				t.AlphaByBucket[inline.Content[i].Value] = alpha
			}
		}
	}
	return t
}

// bucketAxes reads the axes; an axis that the block leaves out is the default.
func bucketAxes(n *yaml.Node) *BucketAxes {
	if isNull(n) || n.Kind != yaml.MappingNode {
		return nil
	}
	out := DefaultBucketAxes()
	for _, a := range axes {
		bins, labels := a.get(out)
		if list, ok := nodeList(child(n, a.bins), nodeFloat); ok {
			*bins = list
		}
		if list, ok := nodeList(child(n, a.labels), nodeText); ok {
			*labels = list
		}
	}
	return out
}

func degreeOf(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 1 && n <= MaxTP && strconv.Itoa(n) == s
}

// skewFit checks the types of the block.
func (c metaCheck) skewFit() {
	n := c.m.Get("skew_fit")
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		c.p.add(yamlProblem(c.file, n, "skew_fit", describe(n), "a mapping"))
		return
	}
	if e := child(n, "enabled"); !isNull(e) {
		if _, ok := nodeBool(e); !ok {
			c.p.add(yamlProblem(c.file, e, "skew_fit.enabled", describe(e), "true or false"))
		}
	}
	c.finite(n, "skew_fit", "alpha_default")
	c.axes(child(n, "bucket_axes"), "skew_fit.bucket_axes")
	perTP := child(n, "per_tp")
	if isNull(perTP) {
		return
	}
	if perTP.Kind != yaml.MappingNode {
		c.p.add(yamlProblem(c.file, perTP, "skew_fit.per_tp", describe(perTP), "a mapping"))
		return
	}
	for i := 0; i+1 < len(perTP.Content); i += 2 {
		k, entry := perTP.Content[i], resolved(perTP.Content[i+1])
		path := "skew_fit.per_tp." + k.Value
		if _, ok := degreeOf(k.Value); !ok {
			c.p.add(yamlProblem(c.file, k, "skew_fit.per_tp", describe(k), fmt.Sprintf("a degree from 1 to %d", MaxTP)))
		}
		if isNull(entry) || entry.Kind != yaml.MappingNode {
			c.p.add(yamlProblem(c.file, perTP.Content[i+1], path, describe(perTP.Content[i+1]), "a mapping"))
			continue
		}
		c.entry(entry, path)
	}
}

func (c metaCheck) entry(n *yaml.Node, path string) {
	for _, name := range []string{"alpha_default", "rel_err_p50", "rel_err_p90", "rel_err_p99", "signed_mean"} {
		c.finite(n, path, name)
	}
	c.axes(child(n, "bucket_axes"), path+".bucket_axes")
	if t := child(n, "bucket_table"); !isNull(t) {
		if t.Kind != yaml.ScalarNode || !fs.ValidPath(t.Value) {
			c.p.add(yamlProblem(c.file, t, path+".bucket_table", describe(t), "a path inside the bundle"))
		}
	}
	inline := child(n, "alpha_by_bucket")
	if isNull(inline) {
		return
	}
	if inline.Kind != yaml.MappingNode {
		c.p.add(yamlProblem(c.file, inline, path+".alpha_by_bucket", describe(inline), "a mapping"))
		return
	}
	for i := 0; i+1 < len(inline.Content); i += 2 {
		c.finite(inline, path+".alpha_by_bucket", inline.Content[i].Value)
	}
}

func (c metaCheck) finite(n *yaml.Node, path, name string) {
	v := child(n, name)
	if isNull(v) {
		return
	}
	if _, ok := nodeFloat(v); !ok {
		c.p.add(yamlProblem(c.file, v, joinPath(path, name), describe(v), "a finite number"))
	}
}

func (c metaCheck) axes(n *yaml.Node, path string) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		c.p.add(yamlProblem(c.file, n, path, describe(n), "a mapping"))
		return
	}
	for _, a := range axes {
		binsNode, labelsNode := child(n, a.bins), child(n, a.labels)
		if isNull(binsNode) && isNull(labelsNode) {
			continue
		}
		if isNull(binsNode) || isNull(labelsNode) {
			c.p.add(yamlProblem(c.file, n, path, "only one of "+a.bins+" and "+a.labels, "both or neither"))
			continue
		}
		bins, ok := nodeList(binsNode, nodeFloat)
		if !ok || !ascending(bins) || len(bins) < 2 {
			c.p.add(yamlProblem(c.file, binsNode, path+"."+a.bins, describe(binsNode), "two or more ascending finite numbers"))
			continue
		}
		labels, ok := nodeList(labelsNode, nodeText)
		if !ok || len(labels) != len(bins)-1 {
			c.p.add(yamlProblem(c.file, labelsNode, path+"."+a.labels,
				fmt.Sprintf("%d labels", len(labelsNode.Content)), fmt.Sprintf("%d, one fewer than %s", len(bins)-1, a.bins)))
		}
	}
}

func ascending(v []float64) bool {
	last := math.Inf(-1)
	for _, x := range v {
		if x <= last {
			return false
		}
		last = x
	}
	return true
}
