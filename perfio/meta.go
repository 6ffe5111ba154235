package perfio

import (
	"fmt"
	"io"

	"gopkg.in/yaml.v3"
)

// Meta is meta.yaml. What this package uses has a method; everything else that
// the file holds is kept and written again. The zero Meta is an empty file.
// A Meta that ParseMeta returned has the right types everywhere, so its methods
// return no errors. It is safe for concurrent use until Set is called.
type Meta struct {
	// Root is the document's top mapping; Get and Set work on it.
	Root *yaml.Node
}

// EngineLimits are the limits under which a bundle was measured; 0 is not
// recorded.
type EngineLimits struct {
	BlockSize           int // tokens of a KV block
	MaxNumBatchedTokens int // logical: shots may exceed it by MaxNumSeqs
	MaxNumSeqs          int
	MaxModelLen         int
	CacheTokens         int // KV blocks x block size
}

// Provenance of a bundle's numbers, as meta.yaml's origin has it.
const (
	OriginMeasured  = "measured"
	OriginReplayed  = "replayed"
	OriginSynthetic = "synthetic"
)

// What the times in skew.csv are, over the timed runs.
const (
	SkewSum  = "sum"
	SkewMean = "mean"
)

// ParseMeta reads a meta.yaml. file is its name in messages. The error is a
// *ParseError or a *ProblemsError.
func ParseMeta(in io.Reader, file string) (*Meta, error) {
	data, err := readLimited(in)
	if err != nil {
		return nil, &ParseError{File: file, Err: ioCause(err)}
	}
	var p problems
	m := parseMeta(data, file, &p)
	return m, p.err()
}

// parseMeta returns nil where the document cannot be used at all.
func parseMeta(data []byte, file string, p *problems) *Meta {
	root := parseYAML(data, file, p)
	if root == nil {
		return nil
	}
	m := &Meta{Root: root}
	m.check(file, p)
	return m
}

// Get is the value at a path of keys, aliases followed; nil if absent. It is
// the document's own node: do not change it.
func (m *Meta) Get(path ...string) *yaml.Node {
	n := m.Root
	for _, key := range path {
		if n = child(n, key); n == nil {
			return nil
		}
	}
	return n
}

// Text is the scalar at a path as it stands there, "" if there is none.
func (m *Meta) Text(path ...string) string {
	s, _ := nodeText(m.Get(path...))
	return s
}

// Int is the integer at a path, 0 if there is none.
func (m *Meta) Int(path ...string) int {
	n, _ := nodeInt(m.Get(path...))
	return n
}

// Hardware is the name of the hardware folder that the bundle belongs to.
func (m *Meta) Hardware() string { return m.Text("hardware") }

// Model is the model's name, as in meta-llama/Llama-3.1-8B.
func (m *Meta) Model() string { return m.Text("model") }

// Variant is the name of the data types; see VariantName.
func (m *Meta) Variant() string { return m.Text("variant") }

// Architecture is the model type whose architecture file was used.
func (m *Meta) Architecture() string { return m.Text("architecture") }

// GPU is the device's name as its driver reports it.
func (m *Meta) GPU() string { return m.Text("gpu") }

// VLLMVersion is the engine's version, "" where no engine measured.
func (m *Meta) VLLMVersion() string { return m.Text("vllm_version") }

// CUDAVersion is the version of CUDA.
func (m *Meta) CUDAVersion() string { return m.Text("cuda_version") }

// ModelRunner is the engine's model runner: V1, V2.
func (m *Meta) ModelRunner() string { return m.Text("model_runner") }

// AttentionBackend is the engine's attention backend, as in "FlashAttention 3".
func (m *Meta) AttentionBackend() string { return m.Text("attention_backend") }

// ProfiledAt is when it was measured, as it stands there.
func (m *Meta) ProfiledAt() string { return m.Text("profiled_at") }

// SMCount is the device's number of streaming multiprocessors; 0: not recorded.
func (m *Meta) SMCount() int { return m.Int("sm_count") }

// MeasurementIterations is the number of timed runs; 0: not recorded.
func (m *Meta) MeasurementIterations() int { return m.Int("measurement_iterations") }

// SkewStatistic is what the times in skew.csv are over the timed runs: SkewSum
// where nothing is recorded, as older profilers write it.
func (m *Meta) SkewStatistic() string {
	if s := m.Text("skew_statistic"); s != "" {
		return s
	}
	return SkewSum
}

// SkewRuns is the number of timed runs that a time in skew.csv sums up, 1 where
// it is a mean; 0: not recorded.
func (m *Meta) SkewRuns() int {
	if m.SkewStatistic() == SkewMean {
		return 1
	}
	if n := m.Int("skew_sum_of"); n > 0 {
		return n
	}
	return max(m.MeasurementIterations(), 0)
}

// PrefillFirst says in which order the mixed batches of attention.csv and
// skew.csv ran: the prefill first, as older profilers do and do not record, or
// the decodes first, as an engine's own.
func (m *Meta) PrefillFirst() bool { return m.Text("order") != "engine" }

// Origin says where the numbers come from; OriginMeasured where nothing is
// recorded.
func (m *Meta) Origin() string {
	if s := m.Text("origin"); s != "" {
		return s
	}
	return OriginMeasured
}

// How a tensor-parallel degree above 1 was had: by one device with the model's
// sizes divided, or by an engine of that many ranks.
const (
	TPModeEmulated = "emulated"
	TPModeReal     = "real"
)

// TPMode says how the bundle's degrees were had; TPModeEmulated where nothing is
// recorded.
func (m *Meta) TPMode() string {
	if s := m.Text("tp_mode"); s != "" {
		return s
	}
	return TPModeEmulated
}

// Synthetic says whether the numbers were computed and not measured.
func (m *Meta) Synthetic() bool { return m.Origin() == OriginSynthetic }

// TPDegrees lists the tensor-parallel degrees that the file names; nil if none.
func (m *Meta) TPDegrees() []int {
	list, _ := nodeList(m.Get("tp_degrees"), nodeInt)
	return list
}

// Limits are the engine's limits.
func (m *Meta) Limits() EngineLimits {
	return EngineLimits{
		BlockSize:           m.Int("engine_effective", "block_size"),
		MaxNumBatchedTokens: m.Int("engine_effective", "max_num_batched_tokens"),
		MaxNumSeqs:          m.Int("engine_effective", "max_num_seqs"),
		MaxModelLen:         m.Int("engine_effective", "max_model_len"),
		CacheTokens:         m.Int("engine_effective", "cache_tokens"),
	}
}

// check files every value of a wrong type.
func (m *Meta) check(file string, p *problems) {
	c := metaCheck{m, file, p}
	for _, name := range []string{"hardware", "model", "variant", "architecture", "gpu", "vllm_version", "cuda_version",
		"model_runner", "attention_backend", "profiled_at"} {
		c.scalar(name)
	}
	c.oneOf("skew_statistic", SkewSum, SkewMean)
	c.oneOf("origin", OriginMeasured, OriginReplayed, OriginSynthetic)
	c.count("sm_count")
	c.count("measurement_iterations")
	c.count("skew_sum_of")
	for _, name := range []string{"block_size", "max_num_batched_tokens", "max_num_seqs", "max_model_len", "cache_tokens"} {
		c.count("engine_effective", name)
	}
	if n := m.Get("engine_effective"); !isNull(n) && n.Kind != yaml.MappingNode {
		p.add(yamlProblem(file, n, "engine_effective", describe(n), "a mapping"))
	}
	c.tpDegrees()
	c.skewFit()
	c.steps()
}

type metaCheck struct {
	m    *Meta
	file string
	p    *problems
}

func (c metaCheck) scalar(path ...string) {
	if n := c.m.Get(path...); !isNull(n) && n.Kind != yaml.ScalarNode {
		c.p.add(yamlProblem(c.file, n, dotted(path), describe(n), "text"))
	}
}

func (c metaCheck) oneOf(name string, values ...string) {
	n := c.m.Get(name)
	if isNull(n) {
		return
	}
	for _, v := range values {
		if n.Kind == yaml.ScalarNode && n.Value == v {
			return
		}
	}
	c.p.add(yamlProblem(c.file, n, name, describe(n), fmt.Sprintf("one of %q", values)))
}

// maxCount bounds the counts of meta.yaml; a cache holds more tokens than a
// row's key may name.
const maxCount = 1 << 40

func (c metaCheck) count(path ...string) {
	n := c.m.Get(path...)
	if isNull(n) {
		return
	}
	if v, ok := nodeInt(n); !ok || v < 0 || v > maxCount {
		c.p.add(yamlProblem(c.file, n, dotted(path), describe(n), "an integer from 0"))
	}
}

func (c metaCheck) tpDegrees() {
	n := c.m.Get("tp_degrees")
	if isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		c.p.add(yamlProblem(c.file, n, "tp_degrees", describe(n), "a list of integers"))
		return
	}
	for _, item := range n.Content {
		item = resolved(item)
		if v, ok := nodeInt(item); !ok || v < 1 || v > MaxTP {
			c.p.add(yamlProblem(c.file, item, "tp_degrees", describe(item), fmt.Sprintf("an integer from 1 to %d", MaxTP)))
		}
	}
}

func dotted(path []string) string {
	s := ""
	for _, key := range path {
		s = joinPath(s, key)
	}
	return s
}
