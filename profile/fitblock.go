package profile

import (
	"reflect"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/perfio"
)

// SkewFitNode is meta.yaml's skew_fit block for the fits of a bundle's degrees,
// whose Degree and BucketTable are set. Axes that all share stand once at the
// block's top, others in each entry. Without a fit the block says that there is
// none.
func SkewFitNode(fits []perfio.TPFit) (*yaml.Node, error) {
	block := fitBlock{Enabled: len(fits) > 0}
	shared := len(fits) > 0
	for _, fit := range fits {
		shared = shared && reflect.DeepEqual(fit.Axes, fits[0].Axes)
	}
	if shared {
		block.Axes = axesBlockOf(fits[0].Axes)
	}
	for _, fit := range fits {
		entry := tpFitBlock{
			Method: fit.Method, NSamples: fit.NSamples, AlphaDefault: yamlFloat(fit.AlphaDefault), BucketTable: fit.BucketTable,
			RelErrP50: yamlFloat(fit.RelErrP50), RelErrP90: yamlFloat(fit.RelErrP90), RelErrP99: yamlFloat(fit.RelErrP99),
			SignedMean: yamlFloat(fit.SignedMean),
		}
		if !shared {
			entry.Axes = axesBlockOf(fit.Axes)
		}
		if block.PerTP == nil {
			block.PerTP = make(map[int]tpFitBlock)
		}
		block.PerTP[fit.Degree] = entry
	}
	var node yaml.Node
	err := node.Encode(block)
	return &node, err
}

type fitBlock struct {
	Enabled bool               `yaml:"enabled"`
	Axes    *axesBlock         `yaml:"bucket_axes,omitempty"`
	PerTP   map[int]tpFitBlock `yaml:"per_tp,omitempty"`
}

type tpFitBlock struct {
	Method       string     `yaml:"method"`
	NSamples     int        `yaml:"n_samples"`
	AlphaDefault yamlFloat  `yaml:"alpha_default"`
	BucketTable  string     `yaml:"bucket_table"`
	RelErrP50    yamlFloat  `yaml:"rel_err_p50"`
	RelErrP90    yamlFloat  `yaml:"rel_err_p90"`
	RelErrP99    yamlFloat  `yaml:"rel_err_p99"`
	SignedMean   yamlFloat  `yaml:"signed_mean"`
	Axes         *axesBlock `yaml:"bucket_axes,omitempty"`
}

type axesBlock struct {
	PC             string      `yaml:"pc"`
	NBins          []int       `yaml:"n_bins,flow"`
	NLabels        []string    `yaml:"n_labels,flow"`
	SkewRateBins   []yamlFloat `yaml:"skew_rate_bins,flow"`
	SkewRateLabels []string    `yaml:"skew_rate_labels,flow"`
	KVBigBins      []int       `yaml:"kv_big_bins,flow"`
	KVBigLabels    []string    `yaml:"kv_big_labels,flow"`
	KPBins         []int       `yaml:"kp_bins,flow"`
	KPLabels       []string    `yaml:"kp_labels,flow"`
}

func axesBlockOf(a *perfio.BucketAxes) *axesBlock {
	ints := func(bins []float64) []int {
		out := make([]int, len(bins))
		for i, b := range bins {
			out[i] = int(b)
		}
		return out
	}
	rates := make([]yamlFloat, len(a.SkewRateBins))
	for i, b := range a.SkewRateBins {
		rates[i] = yamlFloat(b)
	}
	return &axesBlock{
		PC:    "raw pc value (profiled grid point)",
		NBins: ints(a.NBins), NLabels: a.NLabels,
		SkewRateBins: rates, SkewRateLabels: a.SkewRateLabels,
		KVBigBins: ints(a.KVBigBins), KVBigLabels: a.KVBigLabels,
		KPBins: ints(a.KPBins), KPLabels: a.KPLabels,
	}
}

// yamlFloat is written so that it reads as a float: 0.0, 0.0543.
type yamlFloat float64

// MarshalYAML writes the shortest form that reads back.
func (f yamlFloat) MarshalYAML() (any, error) {
	text := strconv.FormatFloat(float64(f), 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: text}, nil
}
