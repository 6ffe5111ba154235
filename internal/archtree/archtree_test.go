package archtree

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
)

// family is how a model's classes are called.
type family struct {
	prefix   string // of DecoderLayer, Attention, Model and ForCausalLM
	norm     string
	rotary   string
	mlp      string // "": mixture of experts
	moe      string // name and class of the sparse block
	moeClass string
	qkNorm   bool
}

var families = map[string]family{
	"llama":     {prefix: "Llama", norm: "RMSNorm", rotary: "Llama3RotaryEmbedding", mlp: "LlamaMLP"},
	"qwen3":     {prefix: "Qwen3", norm: "RMSNorm", rotary: "RotaryEmbedding", mlp: "Qwen2MLP", qkNorm: true},
	"qwen3_moe": {prefix: "Qwen3Moe", norm: "RMSNorm", rotary: "RotaryEmbedding", moe: "mlp", moeClass: "Qwen3MoeSparseMoeBlock", qkNorm: true},
	"mixtral":   {prefix: "Mixtral", norm: "RMSNorm", rotary: "RotaryEmbedding", moe: "block_sparse_moe", moeClass: "MixtralMoE"},
	"phimoe":    {prefix: "PhiMoE", norm: "LayerNorm", rotary: "RotaryEmbedding", moe: "block_sparse_moe", moeClass: "PhiMoE"},
}

// tree is a model of two blocks, as an engine's named_modules has it.
func (f family) modules() []Module {
	var out []Module
	add := func(name, class string) { out = append(out, Module{name, class}) }
	add("", f.prefix+"ForCausalLM")
	add("model", f.prefix+"Model")
	add("model.embed_tokens", "VocabParallelEmbedding")
	add("model.layers", "ModuleList")
	for i := range 2 {
		layer := fmt.Sprintf("model.layers.%d", i)
		attention := layer + ".self_attn"
		add(layer, f.prefix+"DecoderLayer")
		add(attention, f.prefix+"Attention")
		add(attention+".qkv_proj", "QKVParallelLinear")
		add(attention+".o_proj", "RowParallelLinear")
		add(attention+".rotary_emb", f.rotary)
		add(attention+".attn", "Attention")
		if f.qkNorm {
			add(attention+".q_norm", f.norm)
			add(attention+".k_norm", f.norm)
		}
		if f.mlp != "" {
			add(layer+".mlp", f.mlp)
			add(layer+".mlp.gate_up_proj", "MergedColumnParallelLinear")
			add(layer+".mlp.down_proj", "RowParallelLinear")
			add(layer+".mlp.act_fn", "SiluAndMul")
		} else {
			add(layer+"."+f.moe, f.moeClass)
			add(layer+"."+f.moe+".gate", "ReplicatedLinear")
			add(layer+"."+f.moe+".experts", "FusedMoE")
		}
		add(layer+".input_layernorm", f.norm)
		add(layer+".post_attention_layernorm", f.norm)
	}
	add("model.norm", f.norm)
	add("lm_head", "ParallelLMHead")
	add("logits_processor", "LogitsProcessor")
	add("sampler", "Sampler")
	return out
}

// A draft made of a model's modules is the file that ships for it.
func TestDraftIsWhatShips(t *testing.T) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			text, notes, err := Draft(f.modules())
			if err != nil {
				t.Fatal(err)
			}
			drafted, err := perfio.ParseArchitecture(strings.NewReader(text), name+".yaml")
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			shipped, err := perfio.LoadArchitecture(name)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(shipped.Sequence, drafted.Sequence); diff != "" {
				t.Errorf("sequence (-shipped +drafted):\n%s\n%s", diff, text)
			}
			if diff := cmp.Diff(byLayer(shipped, f), byLayer(drafted, f)); diff != "" {
				t.Errorf("catalog (-shipped +drafted):\n%s", diff)
			}
			if len(notes) > 0 {
				t.Errorf("notes on a model that is known: %q", notes)
			}
			if diff := cmp.Diff(Match(shipped, f.modules()), Match(drafted, f.modules())); diff != "" {
				t.Errorf("matches (-shipped +drafted):\n%s", diff)
			}
		})
	}
}

// byLayer is a catalog without its order and without the classes that this
// family's model does not have.
func byLayer(a *perfio.Architecture, f family) map[string]perfio.CatalogEntry {
	out := make(map[string]perfio.CatalogEntry)
	for _, e := range a.Catalog {
		e.VLLM = slices.DeleteFunc(slices.Clone(e.VLLM), func(class string) bool {
			return !slices.ContainsFunc(f.modules(), func(m Module) bool { return m.Class == class })
		})
		out[e.Layer] = e
	}
	return out
}

func TestMatch(t *testing.T) {
	arch, err := perfio.LoadArchitecture("qwen3")
	if err != nil {
		t.Fatal(err)
	}
	modules := append(families["qwen3"].modules(), Module{"extra", "Rescale"})
	got := Match(arch, modules)
	for layer, want := range map[string][]string{
		"layernorm": {"model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm",
			"model.layers.1.input_layernorm", "model.layers.1.post_attention_layernorm"},
		"qk_norm":         {"model.layers.0.self_attn.q_norm", "model.layers.0.self_attn.k_norm", "model.layers.1.self_attn.q_norm", "model.layers.1.self_attn.k_norm"},
		"final_layernorm": {"model.norm"}, // the nearest ancestor wins over the model itself
		"down_proj":       {"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"},
	} {
		if diff := cmp.Diff(want, got[layer]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", layer, diff)
		}
	}
	if diff := cmp.Diff([]Module{{"lm_head", "ParallelLMHead"}, {"extra", "Rescale"}}, Unmatched(arch, modules)); diff != "" {
		t.Errorf("unmatched (-want +got):\n%s", diff)
	}
}

func TestDraftOfTheUnknown(t *testing.T) {
	modules := append(families["llama"].modules(),
		Module{"model.layers.0.scale", "Rescale"}, Module{"model.layers.0.pre_feedforward_layernorm", "RMSNorm"})
	modules = slices.DeleteFunc(modules, func(m Module) bool { return m.Class == "Sampler" })
	text, notes, err := Draft(modules)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(notes, "\n")
	for _, want := range []string{"scale (Rescale): no place", "3 layernorms", "sampler: no module"} {
		if !strings.Contains(all, want) {
			t.Errorf("notes %q, expected one with %q", notes, want)
		}
	}
	if !strings.Contains(text, "scale: {vllm: Rescale, within: LlamaDecoderLayer}") {
		t.Errorf("draft:\n%s", text)
	}
	if _, err := perfio.ParseArchitecture(strings.NewReader(text), "new.yaml"); err != nil {
		t.Errorf("the draft is no architecture file: %v", err)
	}
	if _, _, err := Draft([]Module{{"", "Model"}, {"a", "Linear"}}); err == nil {
		t.Error("no error without attention")
	}
}

func TestParse(t *testing.T) {
	want := []Module{{"", "M"}, {"a", "B"}}
	for _, text := range []string{
		`[{"name":"","class":"M"},{"name":"a","class":"B"}]`,
		`{"modules":[{"name":"","class":"M"},{"name":"a","class":"B"}]}`,
		"{\"name\":\"\",\"class\":\"M\"}\n\n{\"name\":\"a\",\"class\":\"B\"}\n",
	} {
		got, err := Parse([]byte(text), "tree.json")
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for text, message := range map[string]string{
		"":                                    "holds no module",
		"{\"name\":\"a\",\"class\":\"B\"}\nx": "tree.json:2",
		`[{"name":"a"}]`:                      "has no class",
		`[{"name":"a","class":"B"},{"name":"a","class":"B"}]`: "stands twice",
		`[{]`: "tree.json",
	} {
		if _, err := Parse([]byte(text), "tree.json"); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%q: %v, expected %q", text, err, message)
		}
	}
}
