package vllmdriver

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
)

func TestEngineConfig(t *testing.T) {
	model, err := perfio.ParseModelConfig(strings.NewReader(`{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":512,
		"intermediate_size":1024,"num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":4,"vocab_size":4096,
		"max_position_embeddings":2048,"torch_dtype":"bfloat16","layer_types":["a","b","c","d"],"eos_token_id":[1,2,3,4],
		"max_window_layers":3,"kept":{"x":1}}`), "config.json")
	if err != nil {
		t.Fatal(err)
	}
	before := len(model.Document["layer_types"].([]any))
	doc, err := engineConfig(model, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]any)
	for _, key := range []string{"num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads", "vocab_size",
		"head_dim", "hidden_size", "layer_types", "eos_token_id", "max_window_layers", "kept"} {
		got[key] = doc[key]
	}
	want := map[string]any{
		"num_hidden_layers": 2, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2048,
		"head_dim": 64, "hidden_size": 512, "layer_types": []any{"a", "b"},
		// As long as the model is deep, and no list by block.
		"eos_token_id":      []any{1, 2, 3, 4},
		"max_window_layers": 2, "kept": map[string]any{"x": 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if model.NumHiddenLayers != 4 || model.Document["num_hidden_layers"] != 4 || len(model.Document["layer_types"].([]any)) != before {
		t.Error("the model's own config was changed")
	}
	if _, err := engineConfig(model, 8, 2); err == nil || !strings.Contains(err.Error(), "num_key_value_heads") {
		t.Errorf("tp 8 of 4 KV heads: found %v", err)
	}
	a, errA := configHash(doc)
	doc["rope_theta"] = 1.5
	b, errB := configHash(doc)
	if errA != nil || errB != nil || a == b {
		t.Errorf("hashes %s and %s, errors %v and %v", a, b, errA, errB)
	}
}

func TestEnvironment(t *testing.T) {
	env, record := environment(
		[]string{"PATH=/bin", "VLLM_USE_X=1", "VLLM_HOST_IP=10.0.0.1", "HF_TOKEN=hf_secret", "VLLM_API_KEY=secret", "CUDA_VISIBLE_DEVICES=3", "DROP=1"},
		map[string]string{"VLLM_HOST_IP": "127.0.0.1"},
		[]string{"MINE=a=b", "DROP", "CUDA_VISIBLE_DEVICES=0,1"},
	)
	for _, kv := range []string{"PATH=/bin", "VLLM_HOST_IP=127.0.0.1", "HF_TOKEN=hf_secret", "CUDA_VISIBLE_DEVICES=0,1", "MINE=a=b"} {
		if !slices.Contains(env, kv) {
			t.Errorf("%s is not in %v", kv, env)
		}
	}
	if slices.Contains(env, "DROP=1") {
		t.Error("DROP is still there")
	}
	want := map[string]string{"VLLM_USE_X": "1", "VLLM_HOST_IP": "127.0.0.1", "CUDA_VISIBLE_DEVICES": "0,1", "MINE": "a=b"}
	if diff := cmp.Diff(want, record); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestTail(t *testing.T) {
	var all strings.Builder
	tl := &tail{pass: &all}
	for i := range 3000 {
		if _, err := tl.Write([]byte("line " + itoa(i) + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	kept := tl.String()
	if len(kept) > tailBytes || !strings.HasPrefix(kept, "line ") || !strings.HasSuffix(kept, "line 2999") {
		t.Errorf("kept %d bytes from %.20q", len(kept), kept)
	}
	if n := strings.Count(all.String(), "\n"); n != 3000 {
		t.Errorf("passed on %d lines", n)
	}
}
