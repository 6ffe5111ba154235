// Package inspection says what a bundle holds: its names, where its numbers
// come from, the range of each axis and what is missing.
package inspection

import (
	"slices"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// Inspection is what a bundle holds; its JSON is what `inspect --json` prints.
type Inspection struct {
	Path       string                   `json:"path"`
	Hardware   string                   `json:"hardware"`
	Model      string                   `json:"model"`
	Variant    string                   `json:"variant"`
	Origin     string                   `json:"origin"`
	Provenance map[string]string        `json:"provenance"`
	Limits     perfio.EngineLimits      `json:"limits"`
	TPs        []TP                     `json:"tps"`
	Coverage   []traceloader.TPCoverage `json:"coverage"`
	Warnings   []string                 `json:"warnings,omitempty"`
}

// TP is what one degree holds.
type TP struct {
	TP   int            `json:"tp"`
	Rows map[string]int `json:"rows"`
	// StepModes are the modes that whole steps were measured in.
	StepModes []string       `json:"step_modes,omitempty"`
	Gaps      *GridGaps      `json:"attention_gaps,omitempty"`
	SkewFit   *SkewFitErrors `json:"skew_fit,omitempty"`
}

// GridGaps counts what the attention grid lacks of the product of its axes.
type GridGaps struct {
	Measured int `json:"measured"`
	// Product is every combination of the axes' values that could be measured:
	// a prefill history needs a chunk, a decode length a decode.
	Product int `json:"product"`
	Missing int `json:"missing"`
}

// SkewFitErrors are those that meta.yaml has of the fit, as shares of 1.
type SkewFitErrors struct {
	Buckets      int     `json:"buckets"`
	NSamples     int     `json:"n_samples"`
	AlphaDefault float64 `json:"alpha_default"`
	RelErrP50    float64 `json:"rel_err_p50"`
	RelErrP90    float64 `json:"rel_err_p90"`
	RelErrP99    float64 `json:"rel_err_p99"`
	SignedMean   float64 `json:"signed_mean"`
}

// Of inspects a bundle.
func Of(bundle *perfio.Bundle) (*Inspection, error) {
	// Lenient: a layer that the sequence names and nobody measured is shown, not refused.
	table, err := traceloader.New(bundle, traceloader.Options{Lenient: true})
	if err != nil {
		return nil, err
	}
	meta := bundle.Meta
	out := &Inspection{
		Path: bundle.Dir, Hardware: meta.Hardware(), Model: meta.Model(), Variant: meta.Variant(), Origin: meta.Origin(),
		Limits: meta.Limits(), Coverage: table.Coverage().TPs, Warnings: table.Warnings(),
		Provenance: map[string]string{},
	}
	for name, value := range map[string]string{
		"gpu": meta.GPU(), "profiled_at": meta.ProfiledAt(), "vllm_version": meta.VLLMVersion(), "cuda_version": meta.CUDAVersion(),
		"attention_backend": meta.AttentionBackend(), "model_runner": meta.ModelRunner(), "architecture": meta.Architecture(),
		"skew_statistic": meta.SkewStatistic(),
	} {
		if value != "" {
			out.Provenance[name] = value
		}
	}
	for _, w := range bundle.Warnings {
		if !slices.Contains(out.Warnings, w.Error()) { // the table has some of them too
			out.Warnings = append(out.Warnings, w.Error())
		}
	}
	fit := meta.SkewFit()
	for i := range bundle.TPs {
		tp := &bundle.TPs[i]
		one := TP{TP: tp.Degree, Rows: map[string]int{
			"dense": len(tp.Dense), "per_sequence": len(tp.PerSequence), "attention": len(tp.Attention), "moe": len(tp.MoE),
			"skew": len(tp.Skew), "skew_fit": len(tp.SkewFit), "batches": len(tp.Batches), "collectives": len(tp.Collectives),
			"step": len(tp.Steps),
		}}
		for _, mode := range perfio.StepModes() {
			if slices.ContainsFunc(tp.Steps, func(r perfio.StepRow) bool { return r.Mode == mode }) {
				one.StepModes = append(one.StepModes, mode)
			}
		}
		if len(tp.Attention) > 0 {
			one.Gaps = findGaps(tp.Attention)
		}
		if fit != nil && fit.Enabled {
			for _, f := range fit.PerTP {
				if f.Degree == tp.Degree {
					one.SkewFit = &SkewFitErrors{len(tp.SkewFit), f.NSamples, f.AlphaDefault, f.RelErrP50, f.RelErrP90, f.RelErrP99, f.SignedMean}
				}
			}
		}
		out.TPs = append(out.TPs, one)
	}
	return out, nil
}

func findGaps(rows []perfio.AttentionRow) *GridGaps {
	chunks, histories := map[int]bool{}, map[int]bool{}
	decodes, lengths := map[int]bool{}, map[int]bool{}
	for _, r := range rows {
		if r.PrefillChunk > 0 {
			chunks[r.PrefillChunk], histories[r.KVPrefill] = true, true
		}
		if r.NDecode > 0 {
			decodes[r.NDecode], lengths[r.KVDecode] = true, true
		}
	}
	prefill, decode := len(chunks)*len(histories), len(decodes)*len(lengths)
	g := &GridGaps{Measured: len(rows), Product: prefill + decode + prefill*decode}
	g.Missing = g.Product - g.Measured
	return g
}
