package judge

import (
	"errors"
	"fmt"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/internal/accuracy"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/traceloader"
)

// parityRules are traceloader.Parity on the rows of a test, with the skew
// table fitted on them.
type parityRules struct{}

func (parityRules) Name() string { return traceloader.Parity.String() }

func (parityRules) Train(d accuracy.Data) (accuracy.Predictor, error) {
	b, err := withFit(&perfio.Meta{}, perfio.TP{Degree: 1, Attention: d.Attention}, d.Skew)
	if err != nil {
		return nil, err
	}
	t, err := traceloader.New(b, traceloader.Options{Lenient: true})
	if err != nil {
		return nil, err
	}
	h, ok := t.Attention(1)
	if !ok {
		return nil, errNoAttention
	}
	return handle{h}, nil
}

// withFit is a bundle of one tp folder whose skew table is fitted on the given
// cases, whose times are in the unit of attention.csv; m's other entries stay. The table is left out where no case has an
// alpha.
func withFit(m *perfio.Meta, tp perfio.TP, skew []perfio.SkewRow) (*perfio.Bundle, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	if m != nil && m.Root != nil && m.Root.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(m.Root.Content); i += 2 {
			if name := m.Root.Content[i].Value; name != "skew_fit" && name != "skew_statistic" {
				root.Content = append(root.Content, m.Root.Content[i], m.Root.Content[i+1])
			}
		}
	}
	root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "skew_statistic"}, &yaml.Node{Kind: yaml.ScalarNode, Value: perfio.SkewMean})
	fit, err := profile.FitSkew(skew)
	switch {
	case errors.Is(err, profile.ErrNoSkewSamples): // alpha 0
	case err != nil:
		return nil, err
	default:
		summary := fit.Summary
		summary.Degree, summary.BucketTable = tp.Degree, fmt.Sprintf("tp%d/skew_fit.csv", tp.Degree)
		block, err := profile.SkewFitNode([]perfio.TPFit{summary})
		if err != nil {
			return nil, err
		}
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "skew_fit"}, block)
		tp.SkewFit = fit.Rows
	}
	return &perfio.Bundle{Dir: "held-out", Meta: &perfio.Meta{Root: root}, TPs: []perfio.TP{tp}}, nil
}

// Line is the straight line between the two neighbours.
func (parityRules) Line(xs []int, ys []float64, q int) float64 {
	i, _ := slices.BinarySearch(xs[1:len(xs)-1], q)
	i++
	return ys[i-1] + float64(q-xs[i-1])/float64(xs[i]-xs[i-1])*(ys[i]-ys[i-1])
}

var errNoAttention = errors.New("judge: attention.csv: found no rows, expected some")

// handle asks traceloader with the three numbers of the decodes.
type handle struct{ h traceloader.Attention }

func (p handle) AttentionUS(q accuracy.Query) (float64, bool) {
	ns, ok := p.h.SkewLatencyNS(q.PC, q.KP, q.N, q.KVMean, q.KVBig, q.KVSmall)
	return float64(ns) / 1000, ok
}
