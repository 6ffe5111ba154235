package hardware

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxFileBytes bounds what Parse looks at; a real file has about 1 KiB.
const maxFileBytes = 1 << 20

// SpecError is one problem of a specification file.
type SpecError struct {
	File   string
	Line   int    // from 1; 0: the file as a whole
	Column int    // from 1, in characters; 0: not known
	Field  string // "" where the problem is no field's
	Err    error
}

func (e *SpecError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
		if e.Column > 0 {
			fmt.Fprintf(&b, ":%d", e.Column)
		}
	}
	if e.Field != "" {
		b.WriteString(": " + e.Field)
	}
	return b.String() + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *SpecError) Unwrap() error { return e.Err }

// ReadFile parses the specification file at path.
func ReadFile(path string) (*Spec, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(filepath.Clean(path), data)
}

var keyPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// dtypes are the names under which a peak rate may stand, which are vLLM's.
var dtypes = []string{"float64", "float32", "tf32", "float16", "bfloat16", "fp8", "int8", "fp4", "int4"}

// Parse reads one specification; file is used in messages only. All problems
// found are joined.
func Parse(file string, data []byte) (*Spec, error) {
	if len(data) > maxFileBytes {
		return nil, &SpecError{File: file, Err: fmt.Errorf("found %d bytes, expected at most %d", len(data), maxFileBytes)}
	}
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return nil, syntaxError(file, err)
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		return nil, &SpecError{File: file, Line: second.Line, Column: second.Column, Err: errors.New("found a second document, expected one")}
	}
	root := doc.Content[0]
	p := &parser{file: file}
	if root.Kind != yaml.MappingNode {
		p.fail(root, "", "found %s, expected a mapping", kindName(root))
		return nil, errors.Join(p.errs...)
	}
	s := &Spec{Attention: Tiles}
	p.mapping(root, s)
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return s, nil
}

type parser struct {
	file string
	errs []error
}

func (p *parser) fail(n *yaml.Node, field, format string, args ...any) {
	p.errs = append(p.errs, &SpecError{File: p.file, Line: n.Line, Column: n.Column, Field: field, Err: fmt.Errorf(format, args...)})
}

func (p *parser) mapping(root *yaml.Node, s *Spec) {
	positive, orZero := math.SmallestNonzeroFloat64, 0.0
	fields := map[string]func(string, *yaml.Node){
		"hardware": func(f string, n *yaml.Node) {
			if s.Key = p.text(f, n); s.Key != "" && !keyPattern.MatchString(s.Key) {
				p.fail(n, f, "found %q, expected letters, digits, '.', '_' and '-' (it names a folder)", s.Key)
			}
		},
		"kind": func(f string, n *yaml.Node) {
			s.Kind = Kind(p.oneOf(f, n, string(GPU), string(Accelerator)))
		},
		"names": func(f string, n *yaml.Node) { s.Names = p.texts(f, n) },
		"compute_units": func(f string, n *yaml.Node) {
			v := p.number(f, n, 1)
			if v != math.Trunc(v) || v > 1e6 {
				p.fail(n, f, "found %s, expected a whole number up to 1000000", n.Value)
				return
			}
			s.ComputeUnits = int(v)
		},
		"peak_tflops":     func(f string, n *yaml.Node) { s.PeakTFLOPS = p.rates(f, n) },
		"vector_tflops":   func(f string, n *yaml.Node) { s.VectorTFLOPS = p.number(f, n, orZero) },
		"memory_gb_per_s": func(f string, n *yaml.Node) { s.MemoryGBPerS = p.number(f, n, positive) },
		"memory_gb":       func(f string, n *yaml.Node) { s.MemoryGB = p.number(f, n, positive) },
		"cache_mib":       func(f string, n *yaml.Node) { s.CacheMiB = p.number(f, n, orZero) },
		"launch_us":       func(f string, n *yaml.Node) { s.LaunchUS = p.number(f, n, positive) },
		"power_w":         func(f string, n *yaml.Node) { s.PowerW = p.number(f, n, orZero) },
		"attention": func(f string, n *yaml.Node) {
			s.Attention = AttentionKernel(p.oneOf(f, n, string(FlashAttention2), string(FlashAttention3), string(Tiles)))
		},
		"sources": func(f string, n *yaml.Node) { s.Sources = p.texts(f, n) },
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		read, ok := fields[key.Value]
		switch {
		case !ok:
			known := make([]string, 0, len(fields))
			for f := range fields {
				known = append(known, f)
			}
			slices.Sort(known)
			p.fail(key, key.Value, "unknown key, expected one of %s", strings.Join(known, ", "))
		case seen[key.Value]:
			p.fail(key, key.Value, "stands twice")
		default:
			seen[key.Value] = true
			read(key.Value, value)
		}
	}
	for _, f := range []string{"hardware", "kind", "compute_units", "peak_tflops", "memory_gb_per_s", "memory_gb", "launch_us"} {
		if !seen[f] {
			p.fail(root, f, "is missing")
		}
	}
}

func (p *parser) text(field string, n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		p.fail(n, field, "found %s, expected text", kindName(n))
		return ""
	}
	return n.Value
}

func (p *parser) oneOf(field string, n *yaml.Node, allowed ...string) string {
	v := p.text(field, n)
	if v != "" && !slices.Contains(allowed, v) {
		p.fail(n, field, "found %q, expected %s", v, strings.Join(allowed, " or "))
	}
	return v
}

func (p *parser) texts(field string, n *yaml.Node) []string {
	if n.Kind != yaml.SequenceNode {
		p.fail(n, field, "found %s, expected a list", kindName(n))
		return nil
	}
	var out []string
	for _, e := range n.Content {
		if v := p.text(field, e); v != "" {
			out = append(out, v)
		}
	}
	return out
}

func (p *parser) number(field string, n *yaml.Node, least float64) float64 {
	v, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		p.fail(n, field, "found %s, expected a number", kindName(n))
		return math.Max(least, 1)
	}
	if v < least {
		want := fmt.Sprintf("at least %v", least)
		if least == math.SmallestNonzeroFloat64 {
			want = "above 0"
		}
		p.fail(n, field, "found %s, expected a number %s", n.Value, want)
		return math.Max(least, 1)
	}
	return v
}

func (p *parser) rates(field string, n *yaml.Node) map[string]float64 {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		p.fail(n, field, "found %s, expected a rate for each data type, as in {bfloat16: 989.4}", kindName(n))
		return nil
	}
	rates := map[string]float64{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if !slices.Contains(dtypes, key.Value) {
			p.fail(key, field, "found %q, expected one of %s", key.Value, strings.Join(dtypes, ", "))
			continue
		}
		if _, ok := rates[key.Value]; ok {
			p.fail(key, field, "%s stands twice", key.Value)
		}
		rates[key.Value] = p.number(field+"."+key.Value, n.Content[i+1], math.SmallestNonzeroFloat64)
	}
	return rates
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	return strconv.Quote(n.Value)
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// syntaxError positions what the YAML library says; it knows only a line.
func syntaxError(file string, err error) error {
	e := &SpecError{File: file, Line: 1} // the library leaves out the first line's number
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		text = yamlLine.ReplaceAllString(text, "")
	}
	e.Err = errors.New(text)
	if errors.Is(err, io.EOF) {
		e.Line, e.Err = 0, errors.New("found an empty file, expected a specification")
	}
	return e
}
