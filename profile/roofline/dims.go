package roofline

import (
	"fmt"

	"github.com/layerprof/layerprof/perfio"
)

// dims are one rank's sizes of a model.
type dims struct {
	hidden, intermediate int
	heads, kvHeads, head int
	vocab, fullVocab     int // one rank's rows of the vocabulary, and all of them
	experts, topK        int
	moeIntermediate      int
	weightBytes          float64 // of an element of the weights
	activationBytes      float64 // of an element of the activations, 16 bits at least
	kvBytes              float64 // of an element of the KV cache
	peakPerUnit          float64 // matrix operations per microsecond and compute unit
}

// divide splits a model's sizes over tp ranks as the bundle's emulation does.
func divide(m *perfio.ModelConfig, tp int) (dims, error) {
	d := dims{
		hidden: m.HiddenSize, intermediate: m.IntermediateSize,
		heads: m.NumAttentionHeads, kvHeads: m.NumKeyValueHeads, head: m.HeadDim,
		vocab: m.VocabSize, fullVocab: m.VocabSize, experts: m.NumExperts, topK: m.NumExpertsPerToken,
		moeIntermediate: m.MoEIntermediateSize,
	}
	for _, f := range []struct {
		name     string
		value    *int
		required bool
	}{
		{"intermediate_size", &d.intermediate, false},
		{"num_attention_heads", &d.heads, true},
		{"num_key_value_heads", &d.kvHeads, true},
		{"vocab_size", &d.vocab, true},
	} {
		if *f.value < 0 || (f.required && *f.value == 0) {
			return d, fmt.Errorf("model %s: %s: found %d, expected a number above 0", m.ID, f.name, *f.value)
		}
		if *f.value%tp != 0 {
			return d, fmt.Errorf("model %s: %s %d is not divisible by tp %d", m.ID, f.name, *f.value, tp)
		}
		*f.value /= tp
	}
	if d.hidden <= 0 {
		return d, fmt.Errorf("model %s: hidden_size: found %d, expected a number above 0", m.ID, d.hidden)
	}
	if d.head == 0 {
		d.head = d.hidden / (d.heads * tp)
	}
	if d.head <= 0 || d.heads%d.kvHeads != 0 {
		return d, fmt.Errorf("model %s: %d query heads of %d over %d KV heads at tp %d", m.ID, d.heads, d.head, d.kvHeads, tp)
	}
	if d.moeIntermediate == 0 {
		d.moeIntermediate = m.IntermediateSize
	}
	return d, nil
}
