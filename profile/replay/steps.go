package replay

import (
	"context"
	"fmt"
	"slices"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

var _ profile.StepReplayer = (*Driver)(nil)

// StepModes implements profile.StepReplayer: the modes of the source's step.csv.
func (d *Driver) StepModes(context.Context) ([]string, error) {
	tp := d.source.bundle.TP(1)
	if tp == nil {
		return nil, nil
	}
	var modes []string
	for _, mode := range perfio.StepModes() {
		if slices.ContainsFunc(tp.Steps, func(r perfio.StepRow) bool { return r.Mode == mode }) {
			modes = append(modes, mode)
		}
	}
	return modes, nil
}

// ReplaySteps implements profile.StepReplayer: the source's rows as they are,
// without noise, drift or faults.
func (d *Driver) ReplaySteps(mode string) ([]profile.ReplayedSteps, error) {
	bundle := d.source.bundle
	tp := bundle.TP(1)
	if tp == nil {
		return nil, nil
	}
	meta := bundle.Meta
	var block struct {
		Layers          []int     `yaml:"layers"`
		AsyncScheduling bool      `yaml:"async_scheduling"`
		GraphMode       string    `yaml:"graph_mode"`
		CaptureSizes    []int     `yaml:"capture_sizes"`
		ModelRunner     string    `yaml:"model_runner"`
		VLLMVersion     string    `yaml:"vllm_version"`
		CPU             string    `yaml:"cpu"`
		BootSeconds     []float64 `yaml:"boot_seconds"`
	}
	if node := meta.Get("steps", "per_tp", "1", mode); node != nil {
		if err := node.Decode(&block); err != nil {
			return nil, fmt.Errorf("replay: %s: meta.yaml: steps.per_tp.1.%s: %w", bundle.Dir, mode, err)
		}
	}
	limits := meta.Limits()
	var out []profile.ReplayedSteps
	for i := range tp.Steps {
		row := &tp.Steps[i]
		if row.Mode != mode {
			continue
		}
		at := slices.IndexFunc(out, func(s profile.ReplayedSteps) bool { return s.Facts.Layers == row.Layers })
		if at < 0 {
			at = len(out)
			facts := &profile.StepFacts{
				Layers: row.Layers, CaptureSizes: block.CaptureSizes, GraphMode: block.GraphMode, ModelRunner: block.ModelRunner,
				AsyncScheduling: block.AsyncScheduling, CPU: block.CPU, VLLMVersion: block.VLLMVersion,
				GPU: meta.GPU(), SMCount: meta.SMCount(), CUDAVersion: meta.CUDAVersion(), AttentionBackend: meta.AttentionBackend(), Origin: profile.Replayed,
				Limits: profile.Limits{
					MaxNumBatchedTokens: limits.MaxNumBatchedTokens, MaxNumSeqs: limits.MaxNumSeqs, MaxModelLen: limits.MaxModelLen, BlockSize: limits.BlockSize,
				},
			}
			if k := slices.Index(block.Layers, row.Layers); k >= 0 && k < len(block.BootSeconds) {
				facts.BootSeconds = block.BootSeconds[k]
			}
			out = append(out, profile.ReplayedSteps{Facts: facts})
		}
		out[at].Rows = append(out[at].Rows, *row)
	}
	return out, nil
}
