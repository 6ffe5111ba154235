package vllmdriver_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/vllmdriver"
)

// vllmPython is the interpreter of an environment with a real vLLM; tests with
// a real engine run only where it is named.
func vllmPython(t *testing.T) string {
	t.Helper()
	python := os.Getenv("LAYERPROF_VLLM_PYTHON")
	if python == "" {
		t.Skip("LAYERPROF_VLLM_PYTHON does not name a Python with vLLM")
	}
	return python
}

// tinyLlama is small enough for a CPU engine.
func tinyLlama(t *testing.T) profile.EngineSpec {
	t.Helper()
	model, err := perfio.ParseModelConfig(strings.NewReader(`{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":512,
		"intermediate_size":1024,"num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":4,"head_dim":64,"vocab_size":4096,
		"max_position_embeddings":2048,"rms_norm_eps":1e-5,"rope_theta":10000.0,"hidden_act":"silu","torch_dtype":"bfloat16",
		"tie_word_embeddings":false,"bos_token_id":1,"eos_token_id":2}`), "tiny-llama.json")
	if err != nil {
		t.Fatal(err)
	}
	arch, err := perfio.LoadArchitecture(model.ModelType)
	if err != nil {
		t.Fatal(err)
	}
	return profile.EngineSpec{
		Model: model, Architecture: arch, TP: 1, DType: "bfloat16", KVCacheDType: "auto",
		MaxNumBatchedTokens: 256, MaxNumSeqs: 16, MaxModelLen: 1024, Blocks: 2, Seed: 1,
	}
}

func TestVLLMBootMeasureClose(t *testing.T) {
	d, err := vllmdriver.New(vllmdriver.Options{Python: vllmPython(t)})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	e, err := d.Boot(t.Context(), tinyLlama(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("boot: %v, %s", time.Since(began), e.GPU)
	var shots []profile.Shot
	for n := 1; n <= 24; n++ {
		shots = append(shots, profile.Shot{Groups: []profile.Group{{Count: 2, NewTokens: 1, KVHistory: 10 * n}, {Count: 1, NewTokens: n * 8, KVHistory: n}}})
	}
	seen := make([]bool, len(shots))
	err = d.Measure(t.Context(), shots, profile.MeasureOptions{Warmup: 2, Iterations: 3}, func(r profile.Result) error {
		if r.Status != profile.OK {
			t.Logf("shot %d: %s: %s", r.Index, r.Status, r.Message)
		}
		seen[r.Index] = true
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for i, ok := range seen {
		if !ok {
			t.Errorf("shot %d has no result", i)
		}
	}
	began = time.Now()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("close: %v", time.Since(began))
}
