package perfio_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
)

func TestShippedArchitectures(t *testing.T) {
	if got, want := perfio.Architectures(), []string{"llama", "mixtral", "phimoe", "qwen3", "qwen3_moe"}; !slices.Equal(got, want) {
		t.Fatalf("Architectures() = %q, want %q", got, want)
	}
	stable := map[string][]string{
		"llama":     {"layernorm", "final_layernorm", "sampler"},
		"qwen3":     {"layernorm", "qk_norm", "final_layernorm", "sampler"},
		"qwen3_moe": {"layernorm", "qk_norm", "final_layernorm", "sampler"},
		"mixtral":   {"layernorm", "final_layernorm", "sampler"},
		"phimoe":    {"layernorm", "final_layernorm", "sampler"},
	}
	for name, want := range stable {
		a, err := perfio.LoadArchitecture(name)
		if err != nil {
			t.Fatal(err)
		}
		if a.ModelType != name || len(a.SHA256) != 64 {
			t.Errorf("%s: ModelType %q, SHA256 %q", name, a.ModelType, a.SHA256)
		}
		var got []string
		for _, e := range a.Catalog {
			if e.TPStable {
				got = append(got, e.Layer)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: tp_stable layers %q, want %q", name, got, want)
		}
		if (len(a.Sequence.MLPMoE) > 0) != (len(a.Layers("moe")) > 0) {
			t.Errorf("%s: mlp_moe and the catalog's moe section do not go together", name)
		}
		if len(a.Sequence.MLPMoE)+len(a.Sequence.MLPDense) == 0 {
			t.Errorf("%s: a block without an MLP", name)
		}
	}
	llama, err := perfio.LoadArchitecture("llama")
	if err != nil {
		t.Fatal(err)
	}
	want := &perfio.CatalogEntry{Layer: "rotary_emb", Category: "dense", VLLM: []string{"Llama3RotaryEmbedding", "RotaryEmbedding"}}
	if diff := cmp.Diff(want, llama.Entry("rotary_emb")); diff != "" {
		t.Errorf("rotary_emb (-want +got):\n%s", diff)
	}
}

// The layers of measured bundles are those of their architectures.
func TestArchitecturesCoverReference(t *testing.T) {
	for _, dir := range referenceBundles {
		skipWithout(t, dir)
		b, err := perfio.OpenBundle(dir, perfio.Only(perfio.DenseFile, perfio.PerSequenceFile))
		if err != nil {
			t.Fatal(err)
		}
		a, err := perfio.LoadArchitecture(b.Meta.Architecture())
		if err != nil {
			t.Fatal(err)
		}
		layers := map[string]bool{}
		for _, r := range b.TPs[0].Dense {
			layers[r.Layer] = true
		}
		for _, want := range a.Layers("dense") {
			if !layers[want] {
				t.Errorf("%s: no rows of %s", dir, want)
			}
			delete(layers, want)
		}
		if len(layers) > 0 {
			t.Errorf("%s: layers outside the catalog: %v", dir, layers)
		}
	}
}

const goodArch = `sequence:
  prologue: [embedding]
  pre_attn: [attention]
catalog:
  dense:
    embedding: {vllm: A}
  attention:
    attention: {vllm: [B, C], within: D, tp_stable: true}
`

func TestParseArchitecture(t *testing.T) {
	a, err := perfio.ParseArchitecture(strings.NewReader(goodArch), "dir/toy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := &perfio.Architecture{
		ModelType: "toy",
		Sequence:  perfio.Sequence{Prologue: []string{"embedding"}, PreAttn: []string{"attention"}},
		Catalog: []perfio.CatalogEntry{{Layer: "embedding", Category: "dense", VLLM: []string{"A"}},
			{Layer: "attention", Category: "attention", VLLM: []string{"B", "C"}, Within: "D", TPStable: true}},
		SHA256: a.SHA256,
	}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, test := range []struct{ name, from, to, want string }{
		{"unknown top key", "catalog:", "extra: 1\ncatalog:", `toy.yaml:4:1: found the key "extra", expected sequence or catalog`},
		{"unknown stage", "pre_attn", "before", `toy.yaml:3:3: sequence: found the key "before", expected one of prologue, pre_attn, post_attn, mlp_dense, mlp_moe, head`},
		{"unknown category", "dense:", "sparse:", `toy.yaml:5:3: catalog: found the key "sparse", expected one of dense, per_sequence, attention, moe`},
		{"unknown entry key", "within: D", "inside: D", `toy.yaml:8:31: catalog.attention.attention: found the key "inside", expected vllm, within or tp_stable`},
		{"not in the catalog", "[embedding]", "[embeding]", `toy.yaml:2:14: sequence.prologue: found "embeding", expected a layer of the catalog`},
		{"twice", "embedding: {vllm: A}", "embedding: {vllm: A}\n    attention: {vllm: E}", `toy.yaml:9:5: catalog.attention.attention: found the layer a second time, expected names that are unique over the catalog`},
		{"same modules", "{vllm: A}", "{vllm: C, within: D}", `toy.yaml:8:5: catalog.attention.attention: found the modules of embedding, expected a vllm and within of its own`},
		{"no vllm", "{vllm: A}", "{within: A}", `toy.yaml:6:5: catalog.dense.embedding.vllm: found no such key, expected a class name`},
		{"not a bool", "tp_stable: true", "tp_stable: 1", `toy.yaml:8:53: catalog.attention.attention.tp_stable: found "1", expected true or false`},
		{"no catalog", "catalog:", "catalogue:", `toy.yaml:1:1: catalog: found no such key, expected the catalog`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := perfio.ParseArchitecture(strings.NewReader(strings.Replace(goodArch, test.from, test.to, 1)), "toy.yaml")
			if err == nil || !slices.Contains(strings.Split(err.Error(), "\n"), test.want) {
				t.Errorf("got %v\nwant the line %s", err, test.want)
			}
		})
	}
	two := strings.Replace(goodArch, "attention: {vllm: [B", "attention2: {vllm: E}\n    attention: {vllm: [B", 1)
	if _, err := perfio.ParseArchitecture(strings.NewReader(two), "toy.yaml"); err == nil || !strings.Contains(err.Error(), "found 2 entries, expected exactly one") {
		t.Errorf("two attention entries: %v", err)
	}
	if _, err := perfio.LoadArchitecture("../arch/llama"); err == nil {
		t.Error("LoadArchitecture took a path")
	}
}
