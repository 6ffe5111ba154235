package traceloader_test

import (
	"fmt"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// exampleBundle stands for a bundle that was read from disk.
func exampleBundle() *perfio.Bundle {
	tp := perfio.TP{Degree: 1}
	for i, layer := range []string{"embedding", "layernorm", "qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj", "final_layernorm"} {
		for _, tokens := range []int{1, 128, 2048} {
			tp.Dense = append(tp.Dense, perfio.DenseRow{Layer: layer, Tokens: tokens, TimeUS: 2 + float64(i*tokens)/64})
		}
	}
	for _, sequences := range []int{1, 256} {
		tp.PerSequence = append(tp.PerSequence,
			perfio.SequenceRow{Layer: "lm_head", Sequences: sequences, TimeUS: 700 + float64(sequences)},
			perfio.SequenceRow{Layer: "sampler", Sequences: sequences, TimeUS: 9})
	}
	for _, n := range []int{1, 64} {
		for _, kv := range []int{16, 4096} {
			tp.Attention = append(tp.Attention, perfio.AttentionRow{NDecode: n, KVDecode: kv, TimeUS: 8 + float64(n*kv)/512})
		}
	}
	return &perfio.Bundle{TPs: []perfio.TP{tp}}
}

func Example() {
	arch, err := perfio.LoadArchitecture("llama")
	if err != nil {
		fmt.Println(err)
		return
	}
	table, err := traceloader.New(exampleBundle(), traceloader.Options{
		Architecture: arch,
		Model:        &perfio.ModelConfig{NumHiddenLayers: 32},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	walk, err := table.Walk(1)
	if err != nil {
		fmt.Println(err)
		return
	}
	batch := traceloader.NewBatch([]perfio.Request{{NewTokens: 1, KVHistory: 900}, {NewTokens: 1, KVHistory: 100}})
	var step traceloader.Step
	if !walk.Step(batch, &step) {
		fmt.Println("no answer")
		return
	}
	for _, layer := range step.Block {
		fmt.Println(layer.Layer, layer.LatencyNS)
	}
	total, _ := step.TotalNS()
	fmt.Println("block", step.BlockNS, "step", total)
	// Output:
	// layernorm 2031
	// qkv_proj 2062
	// rotary_emb 2093
	// attention 9952
	// o_proj 2124
	// layernorm 2031
	// gate_up_proj 2156
	// act_fn 2187
	// down_proj 2218
	// block 26854 step 1574578
}

func ExampleCurve_Explain() {
	table, err := traceloader.New(exampleBundle(), traceloader.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	qkv, _ := table.Dense(1, "qkv_proj")
	for _, tokens := range []int{128, 200, 4096} {
		ns, answer := qkv.Explain(tokens)
		fmt.Println(tokens, ns, answer.Status)
	}
	// Output:
	// 128 6000 measured
	// 200 8250 interpolated
	// 4096 130000 extrapolated
}

func ExampleAttention_ExplainBatch() {
	table, err := traceloader.New(exampleBundle(), traceloader.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	attention, _ := table.Attention(1)
	ns, answer := attention.ExplainBatch([]perfio.Request{{NewTokens: 512, KVHistory: 0}, {NewTokens: 1, KVHistory: 100}})
	// There is no mixed batch in this bundle.
	fmt.Println(ns, answer.Status, answer.PrefillChunk)
	// Output: 8195 extrapolated extrapolated
}
