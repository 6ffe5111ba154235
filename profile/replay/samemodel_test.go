package replay_test

import (
	"context"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/profile/replay"
)

// The H200 was booted as Llama-3.1-8B's own width: another model's numbers
// cannot be had from it, nor can those of this one under another width.
func TestBootRefusesAnotherModel(t *testing.T) {
	s, err := replay.Open(replay.Options{Bundle: sourceBundle(t)})
	if err != nil {
		t.Fatal(err)
	}
	arch, err := perfio.LoadArchitecture("llama")
	if err != nil {
		t.Fatal(err)
	}
	own, err := perfio.LoadModelConfig("meta-llama/Llama-3.1-8B")
	if err != nil {
		t.Fatal(err)
	}
	heads := *own
	heads.NumKeyValueHeads *= 2
	other, err := perfio.LoadModelConfig("Qwen/Qwen3-32B")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		model *perfio.ModelConfig
		want  string
	}{
		{"its own", own, ""},
		{"no model", nil, ""},
		{"a config without widths", &perfio.ModelConfig{ID: "x"}, ""},
		{"more KV heads", &heads, "num_key_value_heads 8: found meta-llama/Llama-3.1-8B with 16"},
		{"another model", other, "intermediate_size 14336: found Qwen/Qwen3-32B with 25600"},
	} {
		_, err := s.NewDriver().Boot(context.Background(), profile.EngineSpec{Model: test.model, Architecture: arch, TP: 1})
		if got := ""; err != nil {
			got = err.Error()
			if test.want == "" || !strings.Contains(got, test.want) {
				t.Errorf("%s: %s, expected %q", test.name, got, test.want)
			}
		} else if test.want != "" {
			t.Errorf("%s: no error, expected %q", test.name, test.want)
		}
	}
}
