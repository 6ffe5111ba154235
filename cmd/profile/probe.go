package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/vllmdriver"
)

// probeReport is what would measure, and on what.
type probeReport struct {
	Driver  probeDriver    `json:"driver"`
	Host    map[string]any `json:"host,omitempty"` // what a worker says of itself before it boots
	Engines []probeEngine  `json:"engines,omitempty"`
}

type probeDriver struct {
	Name               string         `json:"name"`
	Version            string         `json:"version"`
	Origin             profile.Origin `json:"origin"`
	ShareRepeats       bool           `json:"share_repeats"`
	BatchShots         int            `json:"batch_shots"`
	PaceShotsPerSecond float64        `json:"pace_shots_per_second,omitempty"`
}

type probeEngine struct {
	TP               int               `json:"tp"`
	GPU              string            `json:"gpu"`
	SMCount          int               `json:"sm_count,omitempty"`
	VLLMVersion      string            `json:"vllm_version,omitempty"`
	CUDAVersion      string            `json:"cuda_version,omitempty"`
	AttentionBackend string            `json:"attention_backend,omitempty"`
	ModelRunner      string            `json:"model_runner,omitempty"`
	Limits           probeLimits       `json:"limits"`
	Catalog          []probeMatch      `json:"catalog,omitempty"`
	UnmatchedModules []string          `json:"unmatched_modules"`
	Fingerprint      map[string]string `json:"fingerprint"`
}

type probeLimits struct {
	MaxNumBatchedTokens int `json:"max_num_batched_tokens"`
	MaxNumSeqs          int `json:"max_num_seqs"`
	MaxModelLen         int `json:"max_model_len"`
	CacheTokens         int `json:"cache_tokens"`
	BlockSize           int `json:"block_size"`
	NumExperts          int `json:"num_experts"`
	TopK                int `json:"top_k"`
}

type probeMatch struct {
	Layer   string   `json:"layer"`
	Modules []string `json:"modules"`
}

func newProbeCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Say what would run, without measuring",
		Long: `Say what would run: the driver, and, where --model names one, the engine that it
boots, with its limits and the modules behind each layer. Nothing is measured.

--conformance tries the worker of --driver vllm or exec:CMD on every point of
the worker protocol; the exit status is 1 if it breaks one.`,
		Args: cobra.NoArgs,
	}
	f := addSweepFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	conformance := cmd.Flags().Bool("conformance", false, "check the worker against the protocol")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.Driver == "" {
			return usageErrorf("driver: which one is to be probed? %s", strings.Join(driverUsages(), ", "))
		}
		if *conformance {
			return a.conform(cmd.Context(), f, *asJSON)
		}
		report, err := probe(cmd.Context(), f)
		if err != nil {
			return err
		}
		if *asJSON {
			return json.NewEncoder(a.stdout).Encode(report)
		}
		return report.print(a.stdout)
	}
	return cmd
}

func driverUsages() []string {
	var usages []string
	for _, d := range driverInfos() {
		usages = append(usages, d.Usage)
	}
	return usages
}

func probe(ctx context.Context, f *sweepFlags) (report *probeReport, err error) {
	driver, err := openDriver(f)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	d, err := driver.Describe(ctx)
	if err != nil {
		return nil, err
	}
	report = &probeReport{Driver: probeDriver{
		Name: d.Name, Version: d.Version, Origin: d.Origin, ShareRepeats: d.ShareRepeats,
		BatchShots: d.BatchShots, PaceShotsPerSecond: d.PaceShotsPerSecond,
	}}
	if worker, ok := driver.(*vllmdriver.Driver); ok {
		if report.Host, err = worker.Probe(ctx); err != nil {
			return nil, err
		}
	}
	s, err := loadSweep(ctx, f, d.ShareRepeats)
	if err != nil {
		return nil, err
	}
	if s.Model == nil {
		return report, nil
	}
	for _, tp := range s.Options.TPs {
		e, err := driver.Boot(ctx, s.engineSpec(tp))
		if err != nil {
			return nil, fmt.Errorf("tp%d: %w", tp, err)
		}
		report.Engines = append(report.Engines, newProbeEngine(tp, e))
	}
	return report, nil
}

func newProbeEngine(tp int, e *profile.Engine) probeEngine {
	p := probeEngine{
		TP: tp, GPU: e.GPU, SMCount: e.SMCount, VLLMVersion: e.VLLMVersion, CUDAVersion: e.CUDAVersion,
		AttentionBackend: e.AttentionBackend, ModelRunner: e.ModelRunner, Limits: probeLimits(e.Limits),
		UnmatchedModules: append([]string{}, e.UnmatchedModules...), Fingerprint: e.Fingerprint,
	}
	for _, m := range e.Catalog {
		p.Catalog = append(p.Catalog, probeMatch{Layer: m.Layer, Modules: append([]string{}, m.Modules...)})
	}
	return p
}

func (r *probeReport) print(w io.Writer) error {
	var b strings.Builder
	d := r.Driver
	fmt.Fprintf(&b, "driver: %s %s (%s numbers, %d shots at once)\n", d.Name, d.Version, d.Origin, d.BatchShots)
	for _, k := range slices.Sorted(maps.Keys(r.Host)) {
		fmt.Fprintf(&b, "  %s: %v\n", k, r.Host[k])
	}
	for _, e := range r.Engines {
		fmt.Fprintf(&b, "tp%d: %s\n", e.TP, e.GPU)
		for _, line := range [][2]string{
			{"vLLM", e.VLLMVersion}, {"CUDA", e.CUDAVersion}, {"attention", e.AttentionBackend}, {"model runner", e.ModelRunner},
		} {
			if line[1] != "" {
				fmt.Fprintf(&b, "  %s: %s\n", line[0], line[1])
			}
		}
		l := e.Limits
		fmt.Fprintf(&b, "  limits: max_num_batched_tokens %d, max_num_seqs %d, max_model_len %d, cache %d tokens in blocks of %d (0: none)\n",
			l.MaxNumBatchedTokens, l.MaxNumSeqs, l.MaxModelLen, l.CacheTokens, l.BlockSize)
		if l.NumExperts > 0 {
			fmt.Fprintf(&b, "  experts: %d, %d a token\n", l.NumExperts, l.TopK)
		}
		for _, m := range e.Catalog {
			fmt.Fprintf(&b, "  %s: %s\n", m.Layer, strings.Join(m.Modules, ", "))
		}
		for _, m := range e.UnmatchedModules {
			fmt.Fprintf(&b, "  takes time and belongs to no layer: %s\n", m)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// conform runs the conformance checks and prints them.
func (a *app) conform(ctx context.Context, f *sweepFlags, asJSON bool) error {
	command, err := workerCommand(f.Driver)
	if err != nil {
		return err
	}
	s, err := loadSweep(ctx, f, true)
	if err != nil {
		return err
	}
	spec := profile.EngineSpec{EngineArgs: f.EngineArgs}
	if s.Model != nil {
		spec = s.engineSpec(1)
	}
	checks, err := vllmdriver.Conformance(ctx, workerOptions(f, command), spec)
	failed := 0
	for _, c := range checks {
		if c.Problem != "" {
			failed++
		}
	}
	if asJSON {
		err = errors.Join(err, json.NewEncoder(a.stdout).Encode(map[string]any{"checks": append([]vllmdriver.Check{}, checks...), "failed": failed}))
	} else if _, printErr := io.WriteString(a.stdout, vllmdriver.Report(checks)); printErr != nil {
		err = errors.Join(err, printErr)
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("the worker breaks %d of %d points of the protocol", failed, len(checks))
	}
	return err
}
