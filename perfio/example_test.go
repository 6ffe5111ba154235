package perfio_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing/fstest"

	"github.com/layerprof/layerprof/perfio"
)

func exampleFiles(dense string) fstest.MapFS {
	return fstest.MapFS{
		"toy/meta.yaml":     {Data: []byte("hardware: TOY\nmodel: example/Toy\ntp_degrees: [1]\n")},
		"toy/tp1/dense.csv": {Data: []byte(dense)},
	}
}

func ExampleReadBundle() {
	b, err := perfio.ReadBundle(exampleFiles("layer,tokens,time_us\nqkv_proj,1,17.5\nqkv_proj,16,18\n"), "toy")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(b.Meta.Hardware(), b.Meta.Model())
	for _, row := range b.TP(1).Dense {
		fmt.Println(row.Layer, row.Tokens, row.TimeUS)
	}
	for _, w := range b.Warnings {
		fmt.Println("warning:", w)
	}
	// Output:
	// TOY example/Toy
	// qkv_proj 1 17.5
	// qkv_proj 16 18
	// warning: toy/tp1/per_sequence.csv: found no such file, expected one (its lookups will find nothing)
	// warning: toy/tp1/attention.csv: found no such file, expected one (its lookups will find nothing)
}

func ExampleParseError() {
	_, err := perfio.ReadBundle(exampleFiles("layer,tokens,time_us\nqkv_proj,1.5,17.5\n"), "toy")
	fmt.Println(err)
	var e *perfio.ParseError
	fmt.Println(errors.As(err, &e), e.Line, e.Column, e.Field)
	// Output:
	// toy/tp1/dense.csv:2:10: tokens: found "1.5", expected an integer from 0 to 67108864
	// true 2 10 tokens
}

func ExampleValidate() {
	perfio.Validate(exampleFiles("layer,tokens,time_us\na,1,0\na,-1,2\n"), "toy", func(e *perfio.ParseError) bool {
		if !e.Warning {
			fmt.Println(e)
		}
		return true
	})
	// Output:
	// toy/tp1/dense.csv:2:5: time_us: found "0", expected a number above 0 and at most 1e+12
	// toy/tp1/dense.csv:3:3: tokens: found "-1", expected an integer from 0 to 67108864
}

func ExampleReader() {
	r := perfio.NewMoEReader(strings.NewReader("tokens,activated_experts,time_us\n1,8,50.2\n2,x,56.1\n"), "moe.csv")
	for r.Scan() {
		row, err := r.Record()
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(row.Tokens, row.ActivatedExperts, row.TimeUS)
	}
	fmt.Println(r.Err())
	// Output:
	// 1 8 50.2
	// moe.csv:3:3: activated_experts: found "x", expected an integer from 0 to 67108864
	// <nil>
}

func ExampleWriteAttention() {
	var b bytes.Buffer
	err := perfio.WriteAttention(&b, []perfio.AttentionRow{{PrefillChunk: 16, TimeUS: 5.25}, {NDecode: 1, KVDecode: 16, TimeUS: 22572.6789}})
	if err != nil {
		fmt.Println(err)
	}
	for line := range strings.Lines(b.String()) {
		fmt.Printf("%q\n", line)
	}
	// Output:
	// "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\r\n"
	// "0,0,1,16,22572.7\r\n"
	// "16,0,0,0,5.25\r\n"
}

func ExampleLoadArchitecture() {
	a, err := perfio.LoadArchitecture("llama")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(a.Sequence.PreAttn, a.Entry("o_proj").Within)
	// Output: [layernorm qkv_proj rotary_emb attention] LlamaAttention
}

func ExampleLoadModelConfig() {
	c, err := perfio.LoadModelConfig("meta-llama/Llama-3.1-8B")
	if err != nil {
		fmt.Println(err)
		return
	}
	half, err := c.Divide(2)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.NumHiddenLayers, half.NumAttentionHeads, half.HeadDim, perfio.VariantName("", "fp8", c))
	// Output: 32 16 128 bf16-kvfp8
}
