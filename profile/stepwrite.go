package profile

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/internal/atomicfile"
	"github.com/layerprof/layerprof/perfio"
)

// writeSteps derives step.csv and its block of meta.yaml from the journal.
func (r *runner) writeSteps() error {
	rows, facts, err := r.stepRows()
	if err != nil || len(rows) == 0 {
		return err
	}
	if err := perfio.WriteTP(r.Dir, &perfio.TP{Degree: stepsTP, Steps: rows}); err != nil {
		return err
	}
	if err := r.writeStepMeta(rows, facts); err != nil {
		return err
	}
	r.emit(Event{Kind: EventWrote, TP: stepsTP})
	return nil
}

// stepRows are the rows of all that the journal holds, and the boots behind them
// by mode.
func (r *runner) stepRows() ([]perfio.StepRow, map[string][]*StepFacts, error) {
	x := &r.journal.index
	var rows []perfio.StepRow
	boots := make(map[string][]*StepFacts)
	// In the order of the plan, whatever the order of measuring.
	keys := slices.Clone(x.stepsOrder)
	order := []string{"alone", "ladder", "short", "long"}
	rank := func(k stepsKey) int {
		name, _, _ := strings.Cut(k.workload, ":")
		return slices.Index(order, name)
	}
	slices.SortStableFunc(keys, func(a, b stepsKey) int {
		if a.layers != b.layers {
			return b.layers - a.layers
		}
		return rank(a) - rank(b)
	})
	for _, k := range keys {
		if k.tp != stepsTP {
			continue
		}
		serving := x.serving[servingKey{k.tp, k.mode, k.layers}]
		if serving == nil || serving.Status != OK {
			continue
		}
		entry := x.stepsUnder(serving.Env, k)
		if entry == nil {
			continue
		}
		facts := serving.Steps.Facts
		found, err := rowsOf(entry, facts.Layers)
		if err != nil {
			return nil, nil, fmt.Errorf("journal: %s %s: %w", k.mode, k.workload, err)
		}
		rows = append(rows, found...)
		if !slices.Contains(boots[k.mode], facts) {
			boots[k.mode] = append(boots[k.mode], facts)
		}
	}
	perfio.SortSteps(rows)
	return rows, boots, nil
}

func rowsOf(entry *record, layers int) ([]perfio.StepRow, error) {
	s := entry.Steps
	if s.Table == "" {
		return StepRows(s.Mode, layers, s.Steps), nil
	}
	var rows []perfio.StepRow
	in := perfio.NewStepReader(strings.NewReader(s.Table), perfio.StepFile)
	for in.Scan() {
		row, err := in.Record()
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, in.Err()
}

// stepStatistic says what a row of step.csv holds.
const stepStatistic = "median of up to 8 steps of the same decodes"

func (r *runner) writeStepMeta(rows []perfio.StepRow, boots map[string][]*StepFacts) error {
	old, err := r.metaOnDisk()
	if err != nil {
		return err
	}
	m := newYAMLMap()
	if old != nil && old.Root != nil {
		m = yamlMap{old.Root}
	} else {
		r.headStepMeta(m, boots)
	}
	m.set("steps", StepsNode(rows, boots))
	return atomicfile.Write(filepath.Join(r.Dir, perfio.MetaFile), func(w io.Writer) error {
		return perfio.WriteMeta(w, &perfio.Meta{Root: m.node})
	})
}

// StepsNode is the block of meta.yaml about a tp1's rows of step.csv and the
// boots that they were measured in, by mode.
func StepsNode(rows []perfio.StepRow, boots map[string][]*StepFacts) *yaml.Node {
	degree := newYAMLMap()
	for _, mode := range perfio.StepModes() {
		list := boots[mode]
		if len(list) == 0 {
			continue
		}
		count := 0
		for i := range rows {
			if rows[i].Mode == mode {
				count++
			}
		}
		var layers []int
		var seconds []float64
		for _, f := range list {
			layers = append(layers, f.Layers)
			seconds = append(seconds, perfio.RoundDecimals(f.BootSeconds, 1))
		}
		f, n := list[0], newYAMLMap()
		n.set("layers", layers)
		n.set("rows", count)
		n.set("async_scheduling", f.AsyncScheduling)
		n.setOrDrop("graph_mode", f.GraphMode, f.GraphMode != "")
		n.setOrDrop("capture_sizes", f.CaptureSizes, len(f.CaptureSizes) > 0)
		n.setOrDrop("model_runner", f.ModelRunner, f.ModelRunner != "")
		n.setOrDrop("vllm_version", f.VLLMVersion, f.VLLMVersion != "")
		n.setOrDrop("cpu", f.CPU, f.CPU != "")
		n.setOrDrop("boot_seconds", seconds, !slices.Contains(seconds, 0))
		degree.set(mode, n)
	}
	block := newYAMLMap()
	block.set("statistic", stepStatistic)
	block.set("per_tp", map[int]*yaml.Node{stepsTP: degree.node})
	return block.node
}

// headStepMeta is what meta.yaml says of a bundle that has nothing but steps.
func (r *runner) headStepMeta(m yamlMap, boots map[string][]*StepFacts) {
	var f *StepFacts
	for _, mode := range perfio.StepModes() {
		if list := boots[mode]; len(list) > 0 && f == nil {
			f = list[0]
		}
	}
	m.set("profiler_version", r.ProfilerVersion)
	m.setOrDrop("vllm_version", f.VLLMVersion, f.VLLMVersion != "")
	m.setOrDrop("cuda_version", f.CUDAVersion, f.CUDAVersion != "")
	m.set("gpu", f.GPU)
	m.set("hardware", r.Hardware)
	m.set("profiled_at", r.Now().UTC().Format("2006-01-02T15:04:05+00:00"))
	m.set("architecture", r.Spec.Architecture.ModelType)
	m.set("model", r.Spec.Model.ID)
	m.set("variant", r.Variant)
	m.set("origin", string(f.Origin))
	m.set("driver", r.description.Name)
	m.setOrDrop("driver_version", r.description.Version, r.description.Version != "")
	m.setOrDrop("sm_count", f.SMCount, f.SMCount > 0)
	m.setOrDrop("attention_backend", f.AttentionBackend, f.AttentionBackend != "")
	m.set("tp_degrees", []int{stepsTP})
	effective := newYAMLMap()
	effective.set("dtype", r.Spec.DType)
	effective.set("tensor_parallel_size", 1)
	effective.set("block_size", f.Limits.BlockSize)
	effective.set("max_model_len", f.Limits.MaxModelLen)
	effective.set("max_num_batched_tokens", f.Limits.MaxNumBatchedTokens)
	effective.set("max_num_seqs", f.Limits.MaxNumSeqs)
	m.set("engine_effective", effective)
	m.set("skew_fit", map[string]any{"enabled": false})
}
