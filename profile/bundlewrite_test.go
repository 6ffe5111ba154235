package profile

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/perfio"
)

// A run of tp2 alone measures tp_stable layers on an emulated rank; beside tp1
// its rows are tp1's all the same.
func TestStableRowsAreTheLowestDegrees(t *testing.T) {
	arch, err := perfio.LoadArchitecture("llama")
	if err != nil {
		t.Fatal(err)
	}
	old := &perfio.Bundle{TPs: []perfio.TP{{
		Degree: 1,
		Dense:  []perfio.DenseRow{{Layer: "layernorm", Tokens: 1, TimeUS: 2}, {Layer: "qkv_proj", Tokens: 1, TimeUS: 9}},
	}}}
	own := perfio.TP{Degree: 2, Dense: []perfio.DenseRow{{Layer: "layernorm", Tokens: 1, TimeUS: 3}, {Layer: "qkv_proj", Tokens: 1, TimeUS: 5}}}
	for origin, want := range map[Origin][]perfio.DenseRow{
		Measured: {{Layer: "qkv_proj", Tokens: 1, TimeUS: 5}, {Layer: "layernorm", Tokens: 1, TimeUS: 2}},
		Replayed: own.Dense,
	} {
		tables := perfio.TP{Degree: 2, Dense: append([]perfio.DenseRow(nil), own.Dense...)}
		r := &runner{RunOptions: RunOptions{Spec: EngineSpec{Architecture: arch}}, degree: &degree{engine: &Engine{Origin: origin}}}
		r.copyStable(&tables, old)
		if diff := cmp.Diff(want, tables.Dense); diff != "" {
			t.Errorf("%s (-want +got):\n%s", origin, diff)
		}
	}
}
