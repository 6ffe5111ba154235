package roofline

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/perfio"
)

// batch is what a layer's time depends on, but for attention and MoE.
type batch struct{ tokens, sequences float64 }

// layer is one catalog entry with its model.
type layer struct {
	name  string
	calls int
	// kind says which of the models applies; timeUS is set for simple layers.
	kind   layerKind
	timeUS func(batch) float64
}

type layerKind int

const (
	simple layerKind = iota
	attentionLayer
	moeLayer
)

// bindLayers gives each catalog entry its model. An entry of a class that has
// none is an error: a layer without a time would be missing from the bundle.
func bindLayers(d *device, m *dims, a *perfio.Architecture) ([]layer, error) {
	var out []layer
	for _, e := range a.Catalog {
		l := layer{name: e.Layer, calls: callsOf(a, e.Layer)}
		switch e.Category {
		case "attention":
			l.kind = attentionLayer
		case "moe":
			l.kind = moeLayer
			if m.experts < 1 || m.topK < 1 || m.topK > m.experts || m.moeIntermediate < 1 {
				return nil, fmt.Errorf("layer %s: the model's config has %d experts, %d a token, of size %d", e.Layer, m.experts, m.topK, m.moeIntermediate)
			}
		case "dense", "per_sequence":
			l.timeUS = simpleModel(d, m, e)
			if l.timeUS == nil {
				return nil, fmt.Errorf("layer %s: roofline has no model of class %s within %q; known are %s",
					e.Layer, strings.Join(e.VLLM, " or "), e.Within, strings.Join(knownClasses(), ", "))
			}
		default:
			return nil, fmt.Errorf("layer %s: unknown category %q", e.Layer, e.Category)
		}
		if m.intermediate < 1 && slices.ContainsFunc(e.VLLM, func(c string) bool { return c == "MergedColumnParallelLinear" || c == "SiluAndMul" }) {
			return nil, fmt.Errorf("layer %s: the model's config has no intermediate_size", e.Layer)
		}
		out = append(out, l)
	}
	return out, nil
}

// callsOf counts a layer's calls in one block, or once outside of it.
func callsOf(a *perfio.Architecture, name string) int {
	n := 0
	for _, part := range [][]string{a.Sequence.Prologue, a.Sequence.PreAttn, a.Sequence.PostAttn, a.Sequence.MLPDense, a.Sequence.MLPMoE, a.Sequence.Head} {
		for _, l := range part {
			if l == name {
				n++
			}
		}
	}
	return max(n, 1)
}

// model is the time of one class of layers.
type model func(d *device, m *dims, e perfio.CatalogEntry) func(batch) float64

// models by the engine's class name.
var models = map[string]model{
	"VocabParallelEmbedding":     embedding,
	"RMSNorm":                    layerNorm,
	"LayerNorm":                  layerNorm,
	"QKVParallelLinear":          qkvProjection,
	"RowParallelLinear":          rowParallel,
	"MergedColumnParallelLinear": gateUp,
	"SiluAndMul":                 activation,
	"RotaryEmbedding":            rotary,
	"Llama3RotaryEmbedding":      rotary,
	"LogitsProcessor":            logits,
	"Sampler":                    sampler,
}

func knownClasses() []string {
	var names []string
	for n := range models {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func simpleModel(d *device, m *dims, e perfio.CatalogEntry) func(batch) float64 {
	for _, class := range e.VLLM {
		if f, ok := models[class]; ok {
			return f(d, m, e)
		}
	}
	return nil
}

func embedding(d *device, m *dims, _ perfio.CatalogEntry) func(batch) float64 {
	row := 2 * float64(m.hidden) * m.activationBytes
	return func(b batch) float64 { return gatherLaunches*d.launch + d.move(b.tokens*row) }
}

// gatherLaunches: a gather waits for the indices before it can load a row.
const gatherLaunches = 1.4

// layerNorm adds the residual and normalises: two rows read, two written. The
// norm inside of attention works in place on each head of queries and keys, a
// thread block a row, and its time is the mean of the two calls.
func layerNorm(d *device, m *dims, e perfio.CatalogEntry) func(batch) float64 {
	row := 4 * float64(m.hidden) * m.activationBytes
	if !strings.Contains(e.Within, "Attention") {
		return func(b batch) float64 { return d.elementwise(b.tokens * row) }
	}
	heads := float64(m.heads+m.kvHeads) / 2
	row = 2 * heads * float64(m.head) * m.activationBytes
	return func(b batch) float64 {
		return d.launch + math.Max(d.move(b.tokens*row), b.tokens*heads*rowBlockUS/d.units)
	}
}

// rowBlockUS is the least time that a unit spends on a thread block.
const rowBlockUS = 0.1

func (d *device) linear(m *dims, outputs, inputs int) func(batch) float64 {
	return func(b batch) float64 {
		return d.gemm(b.tokens, float64(outputs), float64(inputs), m.peakPerUnit, m.weightBytes, m.activationBytes)
	}
}

func qkvProjection(d *device, m *dims, _ perfio.CatalogEntry) func(batch) float64 {
	return d.linear(m, (m.heads+2*m.kvHeads)*m.head, m.hidden)
}

// rowParallel is the projection after attention or the last one of the MLP;
// the ancestor says which.
func rowParallel(d *device, m *dims, e perfio.CatalogEntry) func(batch) float64 {
	switch {
	case strings.Contains(e.Within, "Attention"):
		return d.linear(m, m.hidden, m.heads*m.head)
	case strings.Contains(e.Within, "MLP") && m.intermediate > 0:
		return d.linear(m, m.hidden, m.intermediate)
	}
	return nil
}

func gateUp(d *device, m *dims, _ perfio.CatalogEntry) func(batch) float64 {
	return d.linear(m, 2*m.intermediate, m.hidden)
}

func activation(d *device, m *dims, _ perfio.CatalogEntry) func(batch) float64 {
	row := 3 * float64(m.intermediate) * m.activationBytes
	return func(b batch) float64 { return d.elementwise(b.tokens * row) }
}

// rotary turns queries and keys in place, half a head against the other, at
// two thirds of the rate of whole rows.
func rotary(d *device, m *dims, _ perfio.CatalogEntry) func(batch) float64 {
	row := 3 * float64((m.heads+m.kvHeads)*m.head) * m.activationBytes
	return func(b batch) float64 { return gatherLaunches*d.launch + d.move(b.tokens*row) }
}

func logits(d *device, m *dims, _ perfio.CatalogEntry) func(batch) float64 {
	return func(b batch) float64 {
		return d.gemm(b.sequences, float64(m.vocab), float64(m.hidden), m.peakPerUnit, m.weightBytes, m.activationBytes)
	}
}

// sampler widens the logits to float32 and looks for the largest: about ten
// bytes an entry, in samplerLaunches kernels. All ranks sample over the whole
// vocabulary.
func sampler(d *device, m *dims, _ perfio.CatalogEntry) func(batch) float64 {
	row := 10 * float64(m.fullVocab)
	return func(b batch) float64 { return samplerLaunches*d.launch + d.move(b.sequences*row) }
}

const samplerLaunches = 8

// moe is the sparse block: gate, routing, and two products with the weights of
// every expert that has tokens. Each expert's rows are padded to whole tiles.
func (d *device) moe(m *dims, tokens, experts float64) float64 {
	hidden, inter := float64(m.hidden), float64(m.moeIntermediate)
	pairs := tokens * float64(m.topK)
	rows := pairs / experts
	weights := 3 * hidden * inter * m.weightBytes * experts
	gate := d.gemm(tokens, float64(m.experts), hidden, m.peakPerUnit, m.weightBytes, m.activationBytes)
	best := 0.0
	for i, t := range []tile{{16, 128, 0.30}, {32, 128, 0.45}, {64, 128, 0.65}, {128, 128, 0.80}} {
		padded := experts * math.Ceil(rows/t.m) * t.m
		compute := 6 * padded * hidden * inter / (m.peakPerUnit * d.units * matrixShare * t.share)
		if i == 0 || compute < best {
			best = compute
		}
	}
	// Gathered rows, the intermediate ones twice, and the weighted sum.
	moved := d.move((pairs*(2*hidden+5*inter) + 2*tokens*hidden) * m.activationBytes)
	return gate + moeLaunches*d.launch + norm(best, weights/d.memory) + moved
}

const moeLaunches = 7
