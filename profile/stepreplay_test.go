package profile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/profile/replay"
)

// The whole steps of a bundle, replayed: step.csv byte by byte, and its block of
// meta.yaml.
func TestStepsReplayed(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	if err := bundletest.Write(source, bundletest.Files()); err != nil {
		t.Fatal(err)
	}
	bundle, err := perfio.OpenBundle(source)
	if err != nil {
		t.Fatal(err)
	}
	// A second mode, at two depths.
	for _, layers := range []int{16, 8} {
		row := bundle.TPs[0].Steps[0]
		row.Mode, row.Layers = perfio.ModeGraphSync, layers
		bundle.TPs[0].Steps = append(bundle.TPs[0].Steps, row, row)
	}
	rows := bundle.TPs[0].Steps
	rows = append(rows[3:], rows[:3]...)
	bundle.TPs[0].Steps = rows
	block := profile.StepsNode(rows, map[string][]*profile.StepFacts{
		perfio.ModeGraphSync: {{Layers: 16, GraphMode: "FULL", CaptureSizes: []int{1, 2}, CPU: "c", BootSeconds: 30.5}, {Layers: 8, BootSeconds: 20.5}},
		perfio.ModeEagerSync: {{Layers: 2, ModelRunner: "V1", BootSeconds: 5}},
	})
	if err := bundle.Meta.Set(block, "steps"); err != nil {
		t.Fatal(err)
	}
	if err := perfio.WriteBundle(source, bundle); err != nil {
		t.Fatal(err)
	}
	opened, err := replay.Open(replay.Options{Bundle: source})
	if err != nil {
		t.Fatal(err)
	}
	arch, err := perfio.LoadArchitecture("qwen3_moe")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "out")
	options := profile.RunOptions{
		Dir: dir, Hardware: "X", Variant: "bf16", Steps: &profile.StepOptions{Alone: true},
		Open: func() (profile.Driver, error) { return opened.NewDriver(), nil },
		Spec: profile.EngineSpec{Model: &perfio.ModelConfig{ID: "m", NumHiddenLayers: 16}, Architecture: arch},
		Plan: func(int, *profile.Engine) (profile.TPPlan, error) {
			return profile.TPPlan{}, fmt.Errorf("no plan is made")
		},
	}
	report := run(t, options)
	if report.Workloads != 3 || report.Steps != len(rows) || report.Partial() {
		t.Errorf("got %+v", report)
	}
	name := filepath.Join("tp1", perfio.StepFile)
	want, err := os.ReadFile(filepath.Join(source, name))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("step.csv (-source +replayed):\n%s", diff)
	}
	out, err := perfio.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := bundle.Meta.Get("steps").Decode(&a); err != nil {
		t.Fatal(err)
	}
	if err := out.Meta.Get("steps").Decode(&b); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("meta.yaml: steps (-source +replayed):\n%s", diff)
	}
	if report = run(t, options); report.ReusedWorkloads != 3 || report.Workloads != 0 {
		t.Errorf("run again: got %+v", report)
	}
}
