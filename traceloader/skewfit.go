package traceloader

import (
	"fmt"
	"math"
	"path"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/perfio"
)

// skewFit is the skew_fit block of meta.yaml as lookups need it.
type skewFit struct {
	enabled      bool
	alphaDefault float64
	axes         *bucketAxes // nil: none of its own
	perTP        map[int]*tpFit
}

// tpFit is one entry of per_tp.
type tpFit struct {
	alphaDefault float64
	axes         *bucketAxes
	inline       map[string]float64 // alpha_by_bucket; wins over the table
	table        string             // bucket_table, relative to the bundle
}

// bucketAxes are the bins and labels that bucket keys are made of. Label i
// ends at bins[i+1], which belongs to it.
type bucketAxes struct {
	n, rate, kvBig, kp bucketAxis
}

type bucketAxis struct {
	bins   []float64
	labels []string
}

// defaultAxes are those of bundles from before bucket_axes was written.
func defaultAxes() *bucketAxes {
	return &bucketAxes{
		n: bucketAxis{
			[]float64{0, 2, 4, 8, 16, 32, 64, 128, 1000000},
			[]string{"n<=2", "n<=4", "n<=8", "n<=16", "n<=32", "n<=64", "n<=128", "n>128"},
		},
		rate: bucketAxis{
			[]float64{-0.01, 0.05, 0.15, 0.40, 0.70, 1.01},
			[]string{"sr<=5%", "sr<=15%", "sr<=40%", "sr<=70%", "sr>70%"},
		},
		kvBig: bucketAxis{
			[]float64{0, 1024, 4096, 16384, 1e9},
			[]string{"kvB<=1k", "kvB<=4k", "kvB<=16k", "kvB>16k"},
		},
		kp: bucketAxis{
			[]float64{-1, 0, 2048, 1e9},
			[]string{"kp=0", "kp<=2k", "kp>2k"},
		},
	}
}

// axesYAML is bucket_axes as it is written. Its pc entry is a remark.
type axesYAML struct {
	NBins      []float64 `yaml:"n_bins"`
	NLabels    []string  `yaml:"n_labels"`
	RateBins   []float64 `yaml:"skew_rate_bins"`
	RateLabels []string  `yaml:"skew_rate_labels"`
	KVBins     []float64 `yaml:"kv_big_bins"`
	KVLabels   []string  `yaml:"kv_big_labels"`
	KPBins     []float64 `yaml:"kp_bins"`
	KPLabels   []string  `yaml:"kp_labels"`
}

// readSkewFit reads the block; nil where there is none.
func readSkewFit(m *perfio.Meta) (*skewFit, error) {
	if m == nil || m.Root == nil {
		return nil, nil
	}
	block := mapValue(m.Root, "skew_fit")
	if block == nil || block.Kind != yaml.MappingNode {
		return nil, nil
	}
	f := &skewFit{perTP: map[int]*tpFit{}}
	if err := decodeKey(block, "enabled", &f.enabled); err != nil {
		return nil, err
	}
	if !f.enabled {
		return f, nil
	}
	if err := decodeKey(block, "alpha_default", &f.alphaDefault); err != nil {
		return nil, err
	}
	var err error
	if f.axes, err = readAxes(block); err != nil {
		return nil, err
	}
	perTP := mapValue(block, "per_tp")
	if perTP == nil || perTP.Kind != yaml.MappingNode {
		return f, nil
	}
	for i := 0; i+1 < len(perTP.Content); i += 2 {
		key, value := resolve(perTP.Content[i]), resolve(perTP.Content[i+1])
		tp, isInt := tpKey(key)
		if tp < 1 || value.Kind != yaml.MappingNode || len(value.Content) == 0 {
			continue // an empty entry counts as none
		}
		if f.perTP[tp] != nil && !isInt {
			continue // a degree that stands there as a number wins over its text
		}
		e := &tpFit{}
		if err := decodeKey(value, "alpha_default", &e.alphaDefault); err != nil {
			return nil, err
		}
		if e.axes, err = readAxes(value); err != nil {
			return nil, err
		}
		if err := decodeKey(value, "alpha_by_bucket", &e.inline); err != nil {
			return nil, err
		}
		if err := decodeKey(value, "bucket_table", &e.table); err != nil {
			return nil, err
		}
		f.perTP[tp] = e
	}
	return f, nil
}

func tpKey(n *yaml.Node) (tp int, isInt bool) {
	if n.Kind != yaml.ScalarNode {
		return 0, false
	}
	if n.ShortTag() == "!!int" {
		if n.Decode(&tp) != nil {
			return 0, false
		}
		return tp, true
	}
	tp, err := strconv.Atoi(n.Value)
	if err != nil || strconv.Itoa(tp) != n.Value {
		return 0, false
	}
	return tp, false
}

func readAxes(parent *yaml.Node) (*bucketAxes, error) {
	node := mapValue(parent, "bucket_axes")
	if node == nil || node.Kind != yaml.MappingNode || len(node.Content) == 0 {
		return nil, nil
	}
	var y axesYAML
	if err := node.Decode(&y); err != nil {
		return nil, fmt.Errorf("meta.yaml:%d:%d: skew_fit.bucket_axes: %w", node.Line, node.Column, err)
	}
	a := &bucketAxes{
		n: bucketAxis{y.NBins, y.NLabels}, rate: bucketAxis{y.RateBins, y.RateLabels},
		kvBig: bucketAxis{y.KVBins, y.KVLabels}, kp: bucketAxis{y.KPBins, y.KPLabels},
	}
	for _, x := range [...]struct {
		name string
		axis bucketAxis
	}{{"n", a.n}, {"skew_rate", a.rate}, {"kv_big", a.kvBig}, {"kp", a.kp}} {
		if len(x.axis.labels) == 0 || len(x.axis.bins) <= len(x.axis.labels) {
			return nil, fmt.Errorf("meta.yaml:%d:%d: skew_fit.bucket_axes: %s_bins, %s_labels: found %d bins and %d labels, expected a label and one bin more than labels",
				node.Line, node.Column, x.name, x.name, len(x.axis.bins), len(x.axis.labels))
		}
		for _, b := range x.axis.bins {
			if math.IsNaN(b) {
				return nil, fmt.Errorf("meta.yaml:%d:%d: skew_fit.bucket_axes: %s_bins: found NaN, expected a number", node.Line, node.Column, x.name)
			}
		}
	}
	return a, nil
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func mapValue(m *yaml.Node, key string) *yaml.Node {
	m = resolve(m)
	if m == nil || m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if resolve(m.Content[i]).Value == key {
			return resolve(m.Content[i+1])
		}
	}
	return nil
}

// decodeKey leaves out as it is where the key is absent or null.
func decodeKey(m *yaml.Node, key string, out any) error {
	n := mapValue(m, key)
	if n == nil || n.ShortTag() == "!!null" {
		return nil
	}
	if err := n.Decode(out); err != nil {
		return fmt.Errorf("meta.yaml:%d:%d: skew_fit: %s: %w", n.Line, n.Column, key, err)
	}
	return nil
}

// fitTable finds the rows that a bucket_table path names, which is a tp
// folder's skew_fit.csv. It is nil where that file is missing.
func fitTable(b *perfio.Bundle, name string) []perfio.SkewFitRow {
	for i := range b.TPs {
		if path.Clean(name) == fmt.Sprintf("tp%d/skew_fit.csv", b.TPs[i].Degree) {
			return b.TPs[i].SkewFit
		}
	}
	return nil
}
