package judge

import (
	"errors"

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
	tp := perfio.TP{Degree: 1, Attention: d.Attention}
	b := &perfio.Bundle{Dir: "held-out", Meta: &perfio.Meta{}}
	fit, err := profile.FitSkew(d.Skew)
	switch {
	case errors.Is(err, profile.ErrNoSkewSamples): // alpha 0
	case err != nil:
		return nil, err
	default:
		summary := fit.Summary
		summary.Degree, summary.BucketTable = 1, "tp1/skew_fit.csv"
		block, err := profile.SkewFitNode([]perfio.TPFit{summary})
		if err != nil {
			return nil, err
		}
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: "skew_fit"}
		b.Meta.Root = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{key, block}}
		tp.SkewFit = fit.Rows
	}
	b.TPs = []perfio.TP{tp}
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

// Line is the straight line between the two neighbours.
func (parityRules) Line(xs []int, ys []float64, q int) float64 {
	i := 1
	for i < len(xs)-1 && xs[i] < q {
		i++
	}
	return ys[i-1] + float64(q-xs[i-1])/float64(xs[i]-xs[i-1])*(ys[i]-ys[i-1])
}

var errNoAttention = errors.New("judge: attention.csv: found no rows, expected some")

// handle asks traceloader with the three numbers of the decodes.
type handle struct{ h traceloader.Attention }

func (p handle) AttentionUS(q accuracy.Query) (float64, bool) {
	ns, ok := p.h.SkewLatencyNS(q.PC, q.KP, q.N, q.KVMean, q.KVBig, q.KVSmall)
	return float64(ns) / 1000, ok
}
