package perfio

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Architecture is one architecture file: which layers a decoder block runs, in
// which order, and which of the engine's modules each of them is. It is data
// that nobody changes once it is parsed.
type Architecture struct {
	ModelType string
	Sequence  Sequence
	// Catalog in the order of the file.
	Catalog []CatalogEntry
	// SHA256 of the file's bytes, in hexadecimal.
	SHA256 string
}

// Sequence lists layer names in the order in which a step runs them.
type Sequence struct {
	Prologue []string
	PreAttn  []string
	PostAttn []string
	MLPDense []string
	MLPMoE   []string
	Head     []string
}

// CatalogEntry is one layer: where its rows stand and which modules it is.
type CatalogEntry struct {
	Layer    string
	Category string   // dense, per_sequence, attention or moe
	VLLM     []string // class names, any of which matches
	Within   string   // class name of an ancestor, "" for any
	TPStable bool     // measured at tp1, copied to the other degrees
}

// categories are the catalog's sections.
var categories = []string{"dense", "per_sequence", "attention", "moe"}

// Entry is the catalog's entry of a layer, nil if there is none.
func (a *Architecture) Entry(layer string) *CatalogEntry {
	for i := range a.Catalog {
		if a.Catalog[i].Layer == layer {
			return &a.Catalog[i]
		}
	}
	return nil
}

// Layers lists the catalog's layers of one category, in the file's order.
func (a *Architecture) Layers(category string) []string {
	var out []string
	for _, e := range a.Catalog {
		if e.Category == category {
			out = append(out, e.Layer)
		}
	}
	return out
}

// stages gives each stage's name and where it stands in the sequence.
func (s *Sequence) stages() []stage {
	return []stage{{"prologue", &s.Prologue}, {"pre_attn", &s.PreAttn}, {"post_attn", &s.PostAttn},
		{"mlp_dense", &s.MLPDense}, {"mlp_moe", &s.MLPMoE}, {"head", &s.Head}}
}

type stage struct {
	name   string
	layers *[]string
}

//go:embed arch/*.yaml
var archFiles embed.FS

// Architectures lists the model types whose architecture files ship with the
// package, sorted.
func Architectures() []string {
	var out []string
	entries, _ := archFiles.ReadDir("arch") // embedded: cannot fail
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(out)
	return out
}

// LoadArchitecture gives the shipped architecture of a model type (config.json's
// model_type: llama, qwen3, qwen3_moe, mixtral, phimoe).
func LoadArchitecture(modelType string) (*Architecture, error) {
	data, err := archFiles.ReadFile(path.Join("arch", modelType+".yaml"))
	if err != nil || strings.ContainsAny(modelType, `/\`) {
		return nil, fmt.Errorf("architecture %s: found no shipped file, expected one of %s (or give a file)",
			quoted(modelType), strings.Join(Architectures(), ", "))
	}
	return parseArchitecture(data, modelType+".yaml")
}

// OpenArchitecture reads an architecture file; its model type is the file's
// name without the ending.
func OpenArchitecture(name string) (*Architecture, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, &ParseError{File: name, Err: ioCause(err)}
	}
	defer f.Close() // only read from
	return ParseArchitecture(f, name)
}

// ParseArchitecture reads an architecture file. file names it in messages, and
// its base name without the ending is the model type. The error is a
// *ParseError or a *ProblemsError.
func ParseArchitecture(in io.Reader, file string) (*Architecture, error) {
	data, err := readLimited(in)
	if err != nil {
		return nil, &ParseError{File: file, Err: ioCause(err)}
	}
	return parseArchitecture(data, file)
}

func parseArchitecture(data []byte, file string) (*Architecture, error) {
	var p problems
	root := parseYAML(data, file, &p)
	if root == nil {
		return nil, p.err()
	}
	sum := sha256.Sum256(data)
	base := filepath.Base(file)
	r := archReader{file: file, p: &p, a: &Architecture{
		ModelType: strings.TrimSuffix(base, filepath.Ext(base)), SHA256: hex.EncodeToString(sum[:])}}
	r.read(root)
	if err := p.err(); err != nil {
		return nil, err
	}
	return r.a, nil
}

type archReader struct {
	file string
	p    *problems
	a    *Architecture
}

func (r *archReader) problem(n *yaml.Node, field, found, expected string) {
	r.p.add(yamlProblem(r.file, n, field, found, expected))
}

// each hands the pairs of a mapping to do.
func (r *archReader) each(n *yaml.Node, field string, do func(k, v *yaml.Node)) {
	if n == nil || n.Kind != yaml.MappingNode {
		r.problem(n, field, describe(n), "a mapping")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		do(n.Content[i], resolved(n.Content[i+1]))
	}
}

func (r *archReader) read(root *yaml.Node) {
	sequence, catalog := child(root, "sequence"), child(root, "catalog")
	r.each(root, "", func(k, _ *yaml.Node) {
		if k.Value != "sequence" && k.Value != "catalog" {
			r.problem(k, "", "the key "+quoted(k.Value), "sequence or catalog")
		}
	})
	if catalog == nil {
		r.problem(root, "catalog", "no such key", "the catalog")
	} else {
		r.catalog(catalog)
	}
	if sequence == nil {
		r.problem(root, "sequence", "no such key", "the sequence")
	} else {
		r.sequence(sequence)
	}
}

func (r *archReader) catalog(n *yaml.Node) {
	modules := map[string]string{} // class and within -> layer
	r.each(n, "catalog", func(k, v *yaml.Node) {
		if !slices.Contains(categories, k.Value) {
			r.problem(k, "catalog", "the key "+quoted(k.Value), "one of "+strings.Join(categories, ", "))
			return
		}
		if isNull(v) {
			return // a section without entries
		}
		r.each(v, "catalog."+k.Value, func(name, entry *yaml.Node) {
			field := "catalog." + k.Value + "." + name.Value
			if r.a.Entry(name.Value) != nil {
				r.problem(name, field, "the layer a second time", "names that are unique over the catalog")
				return
			}
			if name.Value == "" || len(name.Value) > MaxTextBytes {
				r.problem(name, field, quoted(name.Value), "a layer's name")
				return
			}
			e := CatalogEntry{Layer: name.Value, Category: k.Value}
			r.entry(entry, name, field, &e)
			for _, class := range e.VLLM {
				id := class + " within " + e.Within
				if other, ok := modules[id]; ok {
					r.problem(name, field, "the modules of "+other, "a vllm and within of its own")
				}
				modules[id] = e.Layer
			}
			r.a.Catalog = append(r.a.Catalog, e)
		})
	})
	if found := len(r.a.Layers("attention")); found != 1 {
		r.problem(n, "catalog.attention", fmt.Sprintf("%d entries", found), "exactly one")
	}
}

func (r *archReader) entry(n, name *yaml.Node, field string, e *CatalogEntry) {
	if n == nil || n.Kind != yaml.MappingNode {
		r.problem(name, field, describe(n), "a mapping with vllm")
		return
	}
	r.each(n, field, func(k, v *yaml.Node) {
		ok, expected := false, ""
		switch k.Value {
		case "vllm":
			expected = "a class name or a list of them"
			if class, isText := nodeText(v); isText && class != "" {
				e.VLLM, ok = []string{class}, true
			} else if list, isList := nodeList(v, nodeText); isList && len(list) > 0 && !slices.Contains(list, "") {
				e.VLLM, ok = list, true
			}
		case "within":
			expected = "a class name"
			e.Within, ok = nodeText(v)
		case "tp_stable":
			expected = "true or false"
			e.TPStable, ok = nodeBool(v)
		default:
			r.problem(k, field, "the key "+quoted(k.Value), "vllm, within or tp_stable")
			return
		}
		if !ok {
			r.problem(v, field+"."+k.Value, describe(v), expected)
		}
	})
	if child(n, "vllm") == nil {
		r.problem(name, field+".vllm", "no such key", "a class name")
	}
}

func (r *archReader) sequence(n *yaml.Node) {
	stages := r.a.Sequence.stages()
	r.each(n, "sequence", func(k, v *yaml.Node) {
		i := slices.IndexFunc(stages, func(s stage) bool { return s.name == k.Value })
		if i < 0 {
			r.problem(k, "sequence", "the key "+quoted(k.Value), "one of prologue, pre_attn, post_attn, mlp_dense, mlp_moe, head")
			return
		}
		if isNull(v) {
			return
		}
		list, ok := nodeList(v, nodeText)
		if !ok {
			r.problem(v, "sequence."+k.Value, describe(v), "a list of layer names")
			return
		}
		for j, layer := range list {
			if r.a.Entry(layer) == nil {
				r.problem(v.Content[j], "sequence."+k.Value, quoted(layer), "a layer of the catalog")
			}
		}
		*stages[i].layers = list
	})
}
