package profile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/perfio"
)

// metaNode makes meta.yaml's content from the one on disk, if any, and what
// this run knows. Keys that this program does not know stay as they are.
func (r *runner) metaNode(old *perfio.Meta, degrees []int, d *degree, drift *driftModel, fit *yaml.Node, missing, infeasible int) *yaml.Node {
	m := newYAMLMap()
	if old != nil && old.Root != nil {
		m = yamlMap{old.Root}
	}
	e := d.engine
	o := r.PlanOptions
	m.set("profiler_version", r.ProfilerVersion)
	m.setOrDrop("vllm_version", e.VLLMVersion, e.VLLMVersion != "")
	m.setOrDrop("cuda_version", e.CUDAVersion, e.CUDAVersion != "")
	m.set("gpu", e.GPU)
	m.set("hardware", r.Hardware)
	m.set("profiled_at", r.Now().UTC().Format("2006-01-02T15:04:05+00:00"))
	m.set("architecture", r.Spec.Architecture.ModelType)
	m.setOrDrop("architecture_sha256", r.Spec.Architecture.SHA256, r.Spec.Architecture.SHA256 != "")
	m.set("model", r.Spec.Model.ID)
	m.set("variant", r.Variant)
	m.set("origin", string(e.Origin))
	if e.Origin == Synthetic {
		m.set("synthetic", true)
	}
	m.set("driver", r.description.Name)
	m.setOrDrop("driver_version", r.description.Version, r.description.Version != "")
	m.setOrDrop("sm_count", e.SMCount, e.SMCount > 0)
	m.setOrDrop("attention_backend", e.AttentionBackend, e.AttentionBackend != "")
	m.setOrDrop("model_runner", e.ModelRunner, e.ModelRunner != "")
	replayed := e.Origin == Replayed
	order, iterations := string(o.Order), r.Iterations
	if replayed {
		// What was measured, and how, is the source's to say.
		order, _ = e.Provenance["order"].(string)
		iterations, _ = e.Provenance["measurement_iterations"].(int)
	}
	m.setOrDrop("order", order, order != "")
	m.setOrDrop("blocks", r.Spec.Blocks, !replayed)
	m.set("tp_degrees", degrees)
	m.setOrDrop("tp_mode", string(RealTP), r.Spec.TPMode == RealTP)
	m.set("engine_effective", r.engineEffective(slices.Max(degrees)))
	if r.PlanName != "" {
		m.set("plan", r.PlanName)
	}
	limits := e.Limits
	maxKV := o.MaxKV
	if limits.MaxModelLen > 0 {
		maxKV = min(maxKV, limits.MaxModelLen)
	}
	grid := newYAMLMap()
	grid.set("max_kv", o.MaxKV)
	grid.set("chunk_factor", o.ChunkFactor)
	grid.set("kv_factor", o.KVFactor)
	grid.set("chunks", gridText(true, 16, limits.MaxNumBatchedTokens, o.ChunkFactor))
	grid.set("n_decode", gridText(true, 1, limits.MaxNumSeqs, 2))
	grid.set("kv", gridText(true, 16, maxKV, o.KVFactor))
	m.set("attention_grid", grid)
	m.setOrDrop("measurement_iterations", iterations, iterations > 0)
	m.setOrDrop("measurement_warmup", r.Warmup, !replayed)
	r.setStatistic(m)
	m.set("skew_profile", r.skewProfile(limits, maxKV))
	m.set("skew_fit", fit)
	m.setOrDrop("missing_shots", missing, missing > 0)
	m.setOrDrop("infeasible_shots", infeasible, infeasible > 0)
	telemetry := newYAMLMap()
	telemetry.set("anchors", driftNode(drift, r.DriftThreshold))
	telemetry.setOrDrop("shards", shardsNode(r.shards), len(r.shards) > 0)
	if ratios := rankRatios(drift.index, d); len(ratios) > 1 {
		telemetry.set("ranks", ratios)
	}
	if kernels := collectiveKernels(drift.index, d); len(kernels) > 0 {
		telemetry.set("collective_bytes", kernels)
	}
	deviceNode(telemetry, drift.index, d)
	m.set("telemetry", telemetry)
	provenance := maps.Clone(e.Provenance)
	for _, key := range []string{"engine_effective", "order", "measurement_iterations", "skew_statistic", "skew_sum_of", "origin"} {
		delete(provenance, key) // these have keys of their own
	}
	m.setOrDrop("provenance", provenance, len(provenance) > 0)
	return m.node
}

// setStatistic says what skew.csv holds: means, but where rows of a bundle of
// sums are kept; of a replay what its source says.
func (r *runner) setStatistic(m yamlMap) {
	e := r.degree.engine
	switch {
	case e.Origin == Replayed:
		of, ok := e.Provenance["skew_sum_of"].(int)
		m.setOrDrop("skew_statistic", perfio.SkewMean, e.Provenance["skew_statistic"] == perfio.SkewMean)
		m.setOrDrop("skew_sum_of", of, ok)
	case r.sumsOf > 0:
		m.set("skew_statistic", perfio.SkewSum)
		m.set("skew_sum_of", r.sumsOf)
	default:
		m.set("skew_statistic", perfio.SkewMean)
		m.setOrDrop("skew_sum_of", 0, false)
	}
}

// engineEffective is what was booted, from what the driver says of it and from
// the specification.
func (r *runner) engineEffective(tp int) yamlMap {
	m := newYAMLMap()
	e, s := r.degree.engine, &r.Spec
	if given, ok := e.Provenance["engine_effective"].(map[string]any); ok {
		for _, k := range slices.Sorted(maps.Keys(given)) {
			m.set(k, given[k])
		}
		if e.Origin == Replayed {
			return m
		}
	}
	m.set("dtype", s.DType)
	if s.KVCacheDType != "" {
		m.set("kv_cache_dtype", s.KVCacheDType)
	}
	size, divisor := 1, tp
	if s.TPMode == RealTP {
		size, divisor = tp, 1
	}
	m.set("tensor_parallel_size", size)
	m.set("block_size", e.Limits.BlockSize)
	if e.Limits.MaxModelLen > 0 {
		m.set("max_model_len", e.Limits.MaxModelLen)
	}
	if e.Limits.CacheTokens > 0 {
		m.set("cache_tokens", e.Limits.CacheTokens)
	}
	m.set("max_num_batched_tokens", e.Limits.MaxNumBatchedTokens)
	m.set("max_num_seqs", e.Limits.MaxNumSeqs)
	overrides := newYAMLMap()
	overrides.set("num_hidden_layers", s.Blocks)
	for _, field := range []struct {
		name  string
		value int
	}{
		{"intermediate_size", s.Model.IntermediateSize},
		{"num_attention_heads", s.Model.NumAttentionHeads},
		{"num_key_value_heads", s.Model.NumKeyValueHeads},
		{"vocab_size", s.Model.VocabSize},
	} {
		if field.value > 0 && field.value%divisor == 0 {
			overrides.set(field.name, field.value/divisor)
		}
	}
	m.set("hf_overrides", overrides)
	return m
}

func (r *runner) skewProfile(limits Limits, maxKV int) yamlMap {
	o := r.PlanOptions
	m := newYAMLMap()
	enabled := !o.SkipSkew && o.Kind == FullPlan
	m.set("enabled", enabled)
	if !enabled {
		return m
	}
	factors := newYAMLMap()
	factors.set("n", o.SkewNFactor)
	factors.set("pc", o.SkewPCFactor)
	factors.set("kp", o.SkewKPFactor)
	factors.set("kvs", o.SkewKVSFactor)
	m.set("factors", factors)
	grid := newYAMLMap()
	grid.set("n", gridText(false, 2, limits.MaxNumSeqs, o.SkewNFactor))
	grid.set("ratio", skewRatios)
	grid.set("pc", gridText(true, 16, limits.MaxNumBatchedTokens, o.SkewPCFactor))
	grid.set("kp", gridText(true, 512, max(512, maxKV/2), o.SkewKPFactor))
	grid.set("kvs", gridText(false, 128, max(512, maxKV), o.SkewKVSFactor))
	grid.set("skew_rep", float64(representativeSkew))
	m.set("grid", grid)
	return m
}

// gridText describes a geometric grid in words: "0, 16-2048 x2".
func gridText(zero bool, from, to int, factor float64) string {
	text := fmt.Sprintf("%d-%d x%s", from, to, strconv.FormatFloat(factor, 'g', -1, 64))
	if zero {
		text = "0, " + text
	}
	return text
}

func driftNode(m *driftModel, threshold float64) yamlMap {
	n := newYAMLMap()
	n.set("count", m.Anchors)
	if m.Anchors == 0 {
		return n
	}
	n.set("threshold", threshold)
	shapes := slices.Sorted(maps.Keys(m.references))
	for i, s := range shapes {
		_, shapes[i], _ = strings.Cut(s, " ")
	}
	n.set("shapes", slices.Compact(shapes))
	n.set("fastest", perfio.RoundDecimals(m.Low, 4))
	n.set("slowest", perfio.RoundDecimals(m.High, 4))
	n.set("noise", perfio.RoundDecimals(m.Noise, 4))
	n.set("corrected_shots", m.Corrected)
	redone := 0
	for _, b := range m.index.blocks {
		if b.redone {
			redone++
		}
	}
	n.set("blocks_redone", redone)
	return n
}

// shardsNode says how alike the shards are that a bundle was put together from.
func shardsNode(shards []ShardReport) yamlMap {
	n := newYAMLMap()
	n.set("count", len(shards))
	var ratios []float64
	for _, s := range shards {
		if s.Ratio > 0 {
			ratios = append(ratios, s.Ratio)
		}
	}
	n.set("compared", len(ratios))
	if len(ratios) > 0 {
		n.set("fastest", perfio.RoundDecimals(slices.Min(ratios), 4))
		n.set("slowest", perfio.RoundDecimals(slices.Max(ratios), 4))
	}
	return n
}

// deviceNode adds what the device said of itself over the degree's shots:
// least, median and most of each figure, and all throttle reasons.
func deviceNode(m yamlMap, x *journalIndex, d *degree) {
	figures := []struct {
		name string
		of   func(*Telemetry) int
	}{
		{"sm_clock_mhz", func(t *Telemetry) int { return t.SMClockMHz }},
		{"memory_clock_mhz", func(t *Telemetry) int { return t.MemoryClockMHz }},
		{"temperature_c", func(t *Telemetry) int { return t.TemperatureC }},
		{"power_mw", func(t *Telemetry) int { return t.PowerMW }},
	}
	values := make([][]int, len(figures))
	reasons := make(map[string]bool)
	take := func(r *record) {
		if r.Telemetry == nil || r.TP != d.tp || !slices.Contains(d.envs, r.Env) {
			return
		}
		for i, f := range figures {
			if v := f.of(r.Telemetry); v != 0 {
				values[i] = append(values[i], v)
			}
		}
		for _, reason := range r.Telemetry.ThrottleReasons {
			reasons[reason] = true
		}
	}
	for _, list := range x.shots {
		for _, s := range list {
			take(s.record)
		}
	}
	for _, a := range x.anchors {
		take(a)
	}
	for i, f := range figures {
		if v := values[i]; len(v) > 0 {
			slices.Sort(v)
			m.set(f.name, []int{v[0], v[len(v)/2], v[len(v)-1]})
		}
	}
	if len(reasons) > 0 {
		m.set("throttle_reasons", slices.Sorted(maps.Keys(reasons)))
	}
}
