package perfio_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/layerprof/layerprof/perfio"
)

func TestShippedModelConfigs(t *testing.T) {
	want := map[string]perfio.ModelConfig{
		"meta-llama/Llama-3.1-8B": {ModelType: "llama", HiddenSize: 4096, IntermediateSize: 14336, NumHiddenLayers: 32, NumAttentionHeads: 32,
			NumKeyValueHeads: 8, HeadDim: 128, VocabSize: 128256, MaxPositionEmbeddings: 131072},
		"Qwen/Qwen3-32B": {ModelType: "qwen3", HiddenSize: 5120, IntermediateSize: 25600, NumHiddenLayers: 64, NumAttentionHeads: 64,
			NumKeyValueHeads: 8, HeadDim: 128, VocabSize: 151936, MaxPositionEmbeddings: 40960},
		"Qwen/Qwen3-30B-A3B-Instruct-2507": {ModelType: "qwen3_moe", HiddenSize: 2048, IntermediateSize: 6144, MoEIntermediateSize: 768,
			NumHiddenLayers: 48, NumAttentionHeads: 32, NumKeyValueHeads: 4, HeadDim: 128, VocabSize: 151936, MaxPositionEmbeddings: 262144,
			NumExperts: 128, NumExpertsPerToken: 8},
		"mistralai/Mixtral-8x7B-v0.1": {ModelType: "mixtral", HiddenSize: 4096, IntermediateSize: 14336, MoEIntermediateSize: 14336,
			NumHiddenLayers: 32, NumAttentionHeads: 32, NumKeyValueHeads: 8, HeadDim: 128, VocabSize: 32000, MaxPositionEmbeddings: 32768,
			NumExperts: 8, NumExpertsPerToken: 2},
		"microsoft/Phi-3.5-MoE-instruct": {ModelType: "phimoe", HiddenSize: 4096, IntermediateSize: 6400, MoEIntermediateSize: 6400,
			NumHiddenLayers: 32, NumAttentionHeads: 32, NumKeyValueHeads: 8, HeadDim: 128, VocabSize: 32064, MaxPositionEmbeddings: 131072,
			NumExperts: 16, NumExpertsPerToken: 2},
	}
	if got := perfio.ModelConfigs(); len(got) != len(want) {
		t.Errorf("ModelConfigs() = %q", got)
	}
	for name, w := range want {
		c, err := perfio.LoadModelConfig(name)
		if err != nil {
			t.Fatal(err)
		}
		w.ID, w.TorchDType = name, "bfloat16"
		if diff := cmp.Diff(&w, c, cmpopts.IgnoreFields(perfio.ModelConfig{}, "Document", "Architectures")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if _, err := perfio.LoadArchitecture(c.ModelType); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseModelConfigSpellings(t *testing.T) {
	const base = `"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100, "intermediate_size": 128`
	for _, test := range []struct {
		name, json string
		check      func(*perfio.ModelConfig) bool
	}{
		{"defaults", `{` + base + `}`, func(c *perfio.ModelConfig) bool {
			return c.NumKeyValueHeads == 4 && c.HeadDim == 16 && c.TorchDType == "" && c.NumExperts == 0
		}},
		{"dtype", `{"dtype": "float16", ` + base + `}`, func(c *perfio.ModelConfig) bool { return c.TorchDType == "float16" }},
		{"torch prefix", `{"torch_dtype": "torch.bfloat16", ` + base + `}`, func(c *perfio.ModelConfig) bool { return c.TorchDType == "bfloat16" }},
		{"num_experts", `{"num_experts": 8, "num_experts_per_token": 2, "moe_intermediate_size": 32, ` + base + `}`, func(c *perfio.ModelConfig) bool {
			return c.NumExperts == 8 && c.NumExpertsPerToken == 2 && c.MoEIntermediateSize == 32
		}},
		{"num_local_experts", `{"num_local_experts": 4, "num_experts_per_tok": 1, ` + base + `}`, func(c *perfio.ModelConfig) bool {
			return c.NumExperts == 4 && c.NumExpertsPerToken == 1 && c.MoEIntermediateSize == 128
		}},
		{"n_routed_experts", `{"n_routed_experts": 16, "moe_k": 3, ` + base + `}`, func(c *perfio.ModelConfig) bool {
			return c.NumExperts == 16 && c.NumExpertsPerToken == 3
		}},
		{"text_config", `{"model_type": "both", "torch_dtype": "float32", "text_config": {"model_type": "text", ` + base + `}}`, func(c *perfio.ModelConfig) bool {
			return c.HiddenSize == 64 && c.ModelType == "both" && c.TorchDType == "float32"
		}},
		{"null", `{"num_key_value_heads": null, "num_experts": null, ` + base + `}`, func(c *perfio.ModelConfig) bool {
			return c.NumKeyValueHeads == 4 && c.NumExperts == 0
		}},
	} {
		c, err := perfio.ParseModelConfig(strings.NewReader(test.json), "x/config.json")
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if !test.check(c) {
			t.Errorf("%s: got %+v", test.name, c)
		}
	}
	for _, test := range []struct{ name, json, want string }{
		{"missing", `{"hidden_size": 64}`, "x/config.json: num_hidden_layers: found no such key, expected an integer above 0"},
		{"fraction", "{\n \"vocab_size\": 1.5}", `x/config.json:2:2: vocab_size: found "1.5", expected an integer above 0`},
		{"negative", `{"hidden_size": -1}`, "x/config.json:1:2: hidden_size: found -1, expected an integer from 1 to 2147483648"},
		{"text", `{"hidden_size": "64"}`, `x/config.json:1:2: hidden_size: found "64", expected an integer above 0`},
		{"syntax", "{\n}}", "x/config.json:2:2: found text behind the document, expected the end of the file"},
		{"truncated", `{"hidden_size": `, "x/config.json:1:1: unexpected EOF"},
		{"top_k", `{"num_experts": 4, "num_experts_per_tok": 5, ` + base + `}`, "x/config.json: num_experts_per_tok: found 5, expected at most the 4 experts"},
		{"heads", `{"num_key_value_heads": 3, ` + base + `}`, "x/config.json:1:2: num_key_value_heads: found 3, expected a divisor of the 4 attention heads"},
	} {
		_, err := perfio.ParseModelConfig(strings.NewReader(test.json), "x/config.json")
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v\nwant %s", test.name, err, test.want)
		}
	}
}

func TestLoadModelConfigFromPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "toy")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.json")
	const text = `{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100, "intermediate_size": 128}`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, file} {
		c, err := perfio.LoadModelConfig(name)
		if err != nil || c.ID != "toy" || c.HiddenSize != 64 {
			t.Errorf("LoadModelConfig(%s) = %+v, %v", name, c, err)
		}
	}
	if _, err := perfio.LoadModelConfig("no/such"); err == nil || !strings.Contains(err.Error(), "meta-llama/Llama-3.1-8B") {
		t.Errorf("error %v does not list what there is", err)
	}
}

func TestDivide(t *testing.T) {
	c, err := perfio.LoadModelConfig("mistralai/Mixtral-8x7B-v0.1")
	if err != nil {
		t.Fatal(err)
	}
	half, err := c.Divide(2)
	if err != nil {
		t.Fatal(err)
	}
	if half.IntermediateSize != 7168 || half.NumAttentionHeads != 16 || half.NumKeyValueHeads != 4 || half.VocabSize != 16000 || half.HeadDim != 128 {
		t.Errorf("Divide(2) = %+v", half)
	}
	for key, want := range map[string]any{"intermediate_size": 7168, "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 16000, "head_dim": 128} {
		if half.Document[key] != want {
			t.Errorf("Divide(2).Document[%s] = %v, want %v", key, half.Document[key], want)
		}
	}
	if c.NumAttentionHeads != 32 || c.Document["num_attention_heads"] != 32 {
		t.Error("Divide changed its receiver")
	}
	if _, err := c.Divide(16); err == nil || !strings.Contains(err.Error(), "num_key_value_heads: found 8, expected a multiple of 16 (tensor parallel)") {
		t.Errorf("Divide(16): %v", err)
	}
	if _, err := c.Divide(0); err == nil {
		t.Error("Divide(0) is no error")
	}
}

func TestVariantName(t *testing.T) {
	cfg := &perfio.ModelConfig{TorchDType: "float16"}
	for _, test := range []struct {
		dtype, kv string
		cfg       *perfio.ModelConfig
		want      string
	}{
		{"bfloat16", "auto", nil, "bf16"}, {"half", "", nil, "fp16"}, {"float", "fp8", nil, "fp32-kvfp8"},
		{"fp8_e4m3", "fp8_e5m2", nil, "fp8-kvfp8e5m2"}, {"int8", "", nil, "int8"}, {"awq", "turbo", nil, "awq-kvturbo"},
		{"", "", cfg, "fp16"}, {"auto", "bfloat16", cfg, "fp16-kvbf16"}, {"", "", nil, "default"}, {"", "", &perfio.ModelConfig{}, "default"},
	} {
		if got := perfio.VariantName(test.dtype, test.kv, test.cfg); got != test.want {
			t.Errorf("VariantName(%q, %q, %v) = %q, want %q", test.dtype, test.kv, test.cfg, got, test.want)
		}
	}
}
