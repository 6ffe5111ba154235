package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/profile/replay"
)

const exampleBundle = "../../examples/bundle/H200/meta-llama/Llama-3.1-8B/bf16"

// slowDriver is a driver on a slower device.
type slowDriver struct {
	profile.Driver
	factor float64
}

func (d slowDriver) Measure(ctx context.Context, shots []profile.Shot, options profile.MeasureOptions, yield func(profile.Result) error) error {
	return d.Driver.Measure(ctx, shots, options, func(res profile.Result) error {
		for _, l := range res.Layers {
			for i := range l.SamplesUS {
				l.SamplesUS[i] *= d.factor
			}
		}
		return yield(res)
	})
}

// runShard measures one shard of the example bundle's rows by replay.
func runShard(t *testing.T, dir string, factor float64, shard profile.Shard) {
	t.Helper()
	bundle, err := perfio.OpenBundle(exampleBundle)
	if err != nil {
		t.Fatal(err)
	}
	options, err := replay.Parse(exampleBundle)
	if err != nil {
		t.Fatal(err)
	}
	source, err := replay.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	arch, archErr := perfio.LoadArchitecture(bundle.Meta.Architecture())
	model, modelErr := perfio.LoadModelConfig(bundle.Meta.Model())
	plan, planErr := profile.PlanOptions{}.Filled()
	if err := errors.Join(archErr, modelErr, planErr); err != nil {
		t.Fatal(err)
	}
	limits := bundle.Meta.Limits()
	report, err := profile.Run(t.Context(), profile.RunOptions{
		Dir: dir, Hardware: "H200", Variant: "bf16", Shard: shard, PlanOptions: plan, TargetError: -1,
		Open: func() (profile.Driver, error) { return slowDriver{source.NewDriver(), factor}, nil },
		Spec: profile.EngineSpec{
			Model: model, Architecture: arch, DType: "bfloat16", MaxNumBatchedTokens: limits.MaxNumBatchedTokens, MaxNumSeqs: limits.MaxNumSeqs,
		},
		Plan: func(_ int, e *profile.Engine) (profile.TPPlan, error) {
			p, err := profile.NewPlanFromBundle(bundle, e.Limits, arch, plan)
			if err != nil {
				return profile.TPPlan{}, err
			}
			return p.TPs[0], nil
		},
	})
	if err != nil || report.Partial() {
		t.Fatalf("%+v, %v", report, err)
	}
}

func sameCSVs(t *testing.T, got, want string) {
	t.Helper()
	for _, name := range []string{"dense.csv", "per_sequence.csv", "attention.csv", "skew.csv", "skew_fit.csv"} {
		a, errA := os.ReadFile(filepath.Join(got, "tp1", name))
		b, errB := os.ReadFile(filepath.Join(want, "tp1", name))
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Errorf("%s: %d bytes, expected %d; %v, %v", name, len(a), len(b), errA, errB)
		}
	}
}

func TestMergeShards(t *testing.T) {
	work := t.TempDir()
	whole, dir := filepath.Join(work, "whole"), filepath.Join(work, "shards")
	runShard(t, whole, 1, profile.Shard{})
	if status, _, stderr := call(t, "", "merge", whole); status != exitUsage || !strings.Contains(stderr, "no shards") {
		t.Errorf("a bundle without shards: status %d, %s", status, stderr)
	}
	runShard(t, dir, 1, profile.Shard{Index: 0, Count: 2})
	status, _, stderr := call(t, "", "merge", dir)
	if _, err := os.Stat(filepath.Join(dir, "meta.yaml")); status != exitProblems || err == nil || !strings.Contains(stderr, "shots are not measured: 1/2 lacks") {
		t.Errorf("half of the shards: status %d, %v, %s", status, err, stderr)
	}
	if status, _, stderr := call(t, "", "merge", dir, "--partial"); status != exitOK || !strings.Contains(stderr, "the tables lack them") {
		t.Errorf("--partial: status %d, %s", status, stderr)
	}
	runShard(t, dir, 1, profile.Shard{Index: 1, Count: 2})
	status, stdout, stderr := call(t, "", "merge", dir)
	if status != exitOK || !strings.Contains(stdout, "shard-0001-of-0002") || strings.Count(stdout, " 1.0000") != 2 {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	sameCSVs(t, dir, whole)
	if status, stdout, _ := call(t, "", "validate", dir); status != exitOK {
		t.Errorf("validate: %s", stdout)
	}
}

// Shards measured in folders apart, one of them begun in one and ended in
// another.
func TestMergeShardsOfSeveralFolders(t *testing.T) {
	work := t.TempDir()
	whole, a, b, out := filepath.Join(work, "whole"), filepath.Join(work, "a"), filepath.Join(work, "b"), filepath.Join(work, "out")
	runShard(t, whole, 1, profile.Shard{})
	for i, dir := range []string{a, b, a} {
		runShard(t, dir, 1, profile.Shard{Index: i, Count: 3})
	}
	runShard(t, b, 1, profile.Shard{Index: 2, Count: 3})
	first := filepath.Join(a, profile.JournalDir, "shard-0002-of-0003.jsonl")
	text, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first, text[:len(text)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	if status, stdout, stderr := call(t, "", "merge", a, b, "-o", out); status != exitOK || !strings.Contains(stdout, "shard-0002-of-0003-part2") || !strings.Contains(stderr, "an unfinished record") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	sameCSVs(t, out, whole)
	second := filepath.Join(work, "second")
	if status, _, stderr := call(t, "", "merge", a, "-o", second); status != exitProblems || !strings.Contains(stderr, "1/3 lacks") {
		t.Errorf("without a folder: status %d, %s", status, stderr)
	}
	if _, err := os.Stat(second); err == nil {
		t.Error("a merge that failed left its folder")
	}
}

// A shard on another device is refused by its anchors, or left out by name.
func TestMergeShardsOfUnlikeDevices(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shards")
	for i := range 3 {
		runShard(t, dir, map[bool]float64{true: 1.2, false: 1}[i == 1], profile.Shard{Index: i, Count: 3})
	}
	status, stdout, stderr := call(t, "", "merge", dir)
	if status != exitProblems || !strings.Contains(stderr, "shard-0001-of-0003: 1.2000") || !strings.Contains(stdout, " !") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	if status, _, stderr := call(t, "", "merge", dir, "--max-shard-ratio", "60%"); status != exitOK {
		t.Errorf("--max-shard-ratio: status %d, %s", status, stderr)
	}
	if status, _, stderr := call(t, "", "merge", dir, "--without", "shard-0001-of-003", "--partial"); status != exitFailed || !strings.Contains(stderr, `without: found "shard-0001-of-003", which is no file of`) {
		t.Errorf("--without a file that is none: status %d, %s", status, stderr)
	}
	if status, _, stderr := call(t, "", "merge", dir, "--without", "shard-0001-of-0003", "--partial"); status != exitOK {
		t.Errorf("--without: status %d, %s", status, stderr)
	}
	if status, stdout, _ := call(t, "", "merge", dir, "--json", "--max-shard-ratio", "60%"); status != exitOK || strings.Count(stdout, `"ratio":`) != 3 {
		t.Errorf("--json: status %d, %s", status, stdout)
	}
}
