package perfio

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// ModelConfig is a Hugging Face config.json: the fields that matter here, and
// the whole document, which is what an engine is booted with.
type ModelConfig struct {
	ID                    string // the model's name, for folders and messages
	ModelType             string
	Architectures         []string
	HiddenSize            int
	IntermediateSize      int // of the dense MLP; of an expert where MoEIntermediateSize is not given
	MoEIntermediateSize   int // of an expert; 0 for a model without experts
	NumHiddenLayers       int
	NumAttentionHeads     int
	NumKeyValueHeads      int // NumAttentionHeads where the file has none
	HeadDim               int // HiddenSize / NumAttentionHeads where the file has none
	VocabSize             int
	MaxPositionEmbeddings int // 0: not given
	NumExperts            int // 0: a model without experts
	NumExpertsPerToken    int
	TorchDType            string // bfloat16, ...; "" where not given
	TieWordEmbeddings     bool
	// Document is the whole file (the nested text_config, where that is what
	// the fields were read from, stays nested). Integers are int, other numbers
	// float64.
	Document map[string]any
}

//go:embed models/*.json
var modelFiles embed.FS

// ModelConfigs lists the models whose configs ship with the package, sorted.
func ModelConfigs() []string {
	var out []string
	entries, _ := modelFiles.ReadDir("models") // embedded: cannot fail
	for _, e := range entries {
		out = append(out, strings.Replace(strings.TrimSuffix(e.Name(), ".json"), "--", "/", 1))
	}
	slices.Sort(out)
	return out
}

// LoadModelConfig gives the config of a model: from a config.json file or a
// folder that holds one, where name is such a path, else the shipped one.
func LoadModelConfig(name string) (*ModelConfig, error) {
	file := name
	info, err := os.Stat(file)
	if err == nil && info.IsDir() {
		file = filepath.Join(name, "config.json")
		info, err = os.Stat(file)
	}
	if err == nil && info.Mode().IsRegular() {
		f, err := os.Open(file)
		if err != nil {
			return nil, &ParseError{File: file, Err: ioCause(err)}
		}
		defer f.Close() // only read from
		return ParseModelConfig(f, file)
	}
	data, embedErr := modelFiles.ReadFile(path.Join("models", strings.Replace(name, "/", "--", 1)+".json"))
	if embedErr != nil {
		return nil, fmt.Errorf("model %s: found no such file or folder, expected a config.json, its folder, or one of %s",
			quoted(name), strings.Join(ModelConfigs(), ", "))
	}
	c, err := ParseModelConfig(bytes.NewReader(data), name+"/config.json")
	if c != nil {
		c.ID = name
	}
	return c, err
}

// ParseModelConfig reads a config.json. file names it in messages; the ID is
// the document's _name_or_path where that is of the form owner/name, else the
// name of the file's folder. The error is a *ParseError or a *ProblemsError.
func ParseModelConfig(in io.Reader, file string) (*ModelConfig, error) {
	data, err := readLimited(in)
	if err != nil {
		return nil, &ParseError{File: file, Err: ioCause(err)}
	}
	r := configReader{data: data, file: file}
	c := r.read()
	if err := r.p.err(); err != nil {
		return nil, err
	}
	return c, nil
}

type configReader struct {
	data []byte
	file string
	p    problems
	doc  map[string]any
	text map[string]any // text_config, or doc where there is none
	from int            // where text begins in data
}

func (r *configReader) read() *ModelConfig {
	decoder := json.NewDecoder(bytes.NewReader(r.data))
	decoder.UseNumber()
	if err := decoder.Decode(&r.doc); err != nil {
		at := int(decoder.InputOffset())
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			at = int(syntax.Offset) - 1
		}
		r.problem(at, "", errors.New(strings.TrimPrefix(err.Error(), "json: ")))
		return nil
	}
	if _, err := decoder.Token(); err != io.EOF {
		r.problem(int(decoder.InputOffset()), "", &MismatchError{"text behind the document", "the end of the file"})
		return nil
	}
	if r.doc == nil {
		r.problem(0, "", &MismatchError{"null", "an object"})
		return nil
	}
	r.doc = plainNumbers(r.doc).(map[string]any)
	r.text = r.doc
	if nested, ok := r.doc["text_config"].(map[string]any); ok {
		r.text = nested
		r.from = max(0, bytes.Index(r.data, []byte(`"text_config"`)))
	}
	c := &ModelConfig{
		ID:                    r.id(),
		ModelType:             r.string("model_type"),
		HiddenSize:            r.size("hidden_size", true),
		NumHiddenLayers:       r.size("num_hidden_layers", true),
		NumAttentionHeads:     r.size("num_attention_heads", true),
		NumKeyValueHeads:      r.size("num_key_value_heads", false),
		HeadDim:               r.size("head_dim", false),
		VocabSize:             r.size("vocab_size", true),
		MaxPositionEmbeddings: r.size("max_position_embeddings", false),
		NumExperts:            r.size(r.first("num_local_experts", "num_experts", "n_routed_experts"), false),
		TorchDType:            strings.TrimPrefix(r.string(r.first("torch_dtype", "dtype")), "torch."),
		Document:              r.doc,
	}
	c.MoEIntermediateSize = r.size("moe_intermediate_size", false)
	c.IntermediateSize = r.size("intermediate_size", c.MoEIntermediateSize == 0)
	if c.NumExperts > 0 {
		c.NumExpertsPerToken = r.size(r.first("num_experts_per_tok", "num_experts_per_token", "moe_k"), true)
		if c.MoEIntermediateSize == 0 {
			c.MoEIntermediateSize = c.IntermediateSize
		}
		if c.NumExpertsPerToken > c.NumExperts {
			r.problem(-1, "num_experts_per_tok", &MismatchError{fmt.Sprint(c.NumExpertsPerToken), fmt.Sprintf("at most the %d experts", c.NumExperts)})
		}
	} else {
		c.MoEIntermediateSize = 0
	}
	c.TieWordEmbeddings, _ = r.value("tie_word_embeddings").(bool)
	if list, ok := r.doc["architectures"].([]any); ok {
		for _, v := range list {
			if s, ok := v.(string); ok {
				c.Architectures = append(c.Architectures, s)
			}
		}
	}
	r.derive(c)
	return c
}

// derive fills what the file leaves out and checks that heads fit together.
func (r *configReader) derive(c *ModelConfig) {
	if len(r.p.found) > 0 {
		return
	}
	if c.NumKeyValueHeads == 0 {
		c.NumKeyValueHeads = c.NumAttentionHeads
	}
	if c.HeadDim == 0 {
		if c.HiddenSize%c.NumAttentionHeads != 0 {
			r.problem(r.find("hidden_size"), "hidden_size", &MismatchError{fmt.Sprint(c.HiddenSize),
				fmt.Sprintf("a multiple of the %d attention heads, or a head_dim", c.NumAttentionHeads)})
		}
		c.HeadDim = c.HiddenSize / c.NumAttentionHeads
	}
	if c.NumAttentionHeads%c.NumKeyValueHeads != 0 {
		r.problem(r.find("num_key_value_heads"), "num_key_value_heads", &MismatchError{fmt.Sprint(c.NumKeyValueHeads),
			fmt.Sprintf("a divisor of the %d attention heads", c.NumAttentionHeads)})
	}
}

func (r *configReader) id() string {
	if s, ok := r.doc["_name_or_path"].(string); ok && strings.Count(s, "/") == 1 && !strings.ContainsAny(s, `\.~`) &&
		!strings.HasPrefix(s, "/") && !strings.HasSuffix(s, "/") {
		return s
	}
	return filepath.Base(filepath.Dir(r.file))
}

// value looks in the nested config first, then at the top. An explicit null is
// an absent key.
func (r *configReader) value(key string) any {
	if v := r.text[key]; v != nil {
		return v
	}
	return r.doc[key]
}

// first is the first of several names of one thing that the file has, the first
// of all where it has none.
func (r *configReader) first(names ...string) string {
	for _, name := range names {
		if r.value(name) != nil {
			return name
		}
	}
	return names[0]
}

func (r *configReader) string(key string) string {
	if key == "model_type" && r.doc[key] != nil {
		v, ok := r.doc[key].(string)
		if !ok {
			r.problem(r.find(key), key, &MismatchError{fmt.Sprint(r.doc[key]), "text"})
		}
		return v
	}
	v := r.value(key)
	s, ok := v.(string)
	if v != nil && !ok {
		r.problem(r.find(key), key, &MismatchError{fmt.Sprint(v), "text"})
	}
	return s
}

// size reads a count or a width; 0 where it is absent and not required.
func (r *configReader) size(key string, required bool) int {
	const most = 1 << 31
	switch v := r.value(key).(type) {
	case nil:
		if required {
			r.problem(-1, key, &MismatchError{"no such key", "an integer above 0"})
		}
	case int:
		if v >= 0 && v <= most && (v > 0 || !required) {
			return v
		}
		r.problem(r.find(key), key, &MismatchError{fmt.Sprint(v), fmt.Sprintf("an integer from 1 to %d", most)})
	default:
		r.problem(r.find(key), key, &MismatchError{quoted(fmt.Sprint(v)), "an integer above 0"})
	}
	return 0
}

// find is where a key stands, -1 if nowhere.
func (r *configReader) find(key string) int {
	quotedKey := []byte(`"` + key + `"`)
	if i := bytes.Index(r.data[r.from:], quotedKey); i >= 0 {
		return r.from + i
	}
	return bytes.Index(r.data, quotedKey)
}

func (r *configReader) problem(at int, field string, err error) {
	e := &ParseError{File: r.file, Field: field, Err: err}
	if at >= 0 {
		before := r.data[:min(at, len(r.data))]
		e.Line = 1 + bytes.Count(before, []byte("\n"))
		e.Column = len(before) - bytes.LastIndexByte(before, '\n')
	}
	r.p.add(e)
}

// plainNumbers makes int of whole numbers and float64 of the others.
func plainNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return int(n)
		}
		f, err := v.Float64()
		if err != nil {
			return v.String() // beyond float64: kept as it stands
		}
		return f
	case map[string]any:
		for k, item := range v {
			v[k] = plainNumbers(item)
		}
	case []any:
		for i, item := range v {
			v[i] = plainNumbers(item)
		}
	}
	return v
}

// Divide is the config of one rank of tp: intermediate_size, both numbers of
// heads and vocab_size divided, in the fields and in the document, with head_dim
// said explicitly since it no longer follows from the others. It is an error if
// one of them is not divisible. c stays as it is.
func (c *ModelConfig) Divide(tp int) (*ModelConfig, error) {
	if tp < 1 || tp > MaxTP {
		return nil, fmt.Errorf("tensor parallel: found %d, expected 1 to %d", tp, MaxTP)
	}
	out := *c
	out.Architectures = slices.Clone(c.Architectures)
	out.Document = maps.Clone(c.Document)
	text := out.Document
	if nested, ok := c.Document["text_config"].(map[string]any); ok {
		text = maps.Clone(nested)
		out.Document["text_config"] = text
	}
	if tp == 1 {
		return &out, nil
	}
	var failed []error
	for _, f := range []struct {
		name  string
		value *int
	}{
		{"intermediate_size", &out.IntermediateSize}, {"num_attention_heads", &out.NumAttentionHeads},
		{"num_key_value_heads", &out.NumKeyValueHeads}, {"vocab_size", &out.VocabSize},
	} {
		if *f.value%tp != 0 {
			failed = append(failed, fmt.Errorf("%s: %s: found %d, expected a multiple of %d (tensor parallel)", c.ID, f.name, *f.value, tp))
			continue
		}
		*f.value /= tp
		setIn(text, out.Document, f.name, *f.value)
	}
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	setIn(text, out.Document, "head_dim", out.HeadDim)
	return &out, nil
}

// setIn sets a key where the engine will look for it.
func setIn(text, doc map[string]any, name string, value int) {
	text[name] = value
	if _, ok := doc[name]; ok {
		doc[name] = value
	}
}
