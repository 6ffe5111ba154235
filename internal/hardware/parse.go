package hardware

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/internal/yamldoc"
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
	var errs []error
	p := &parser{}
	p.Report = func(problem yamldoc.Problem) {
		errs = append(errs, &SpecError{File: file, Line: problem.Line, Column: problem.Column, Field: problem.Field, Err: problem.Err})
	}
	root := p.Document(data, maxFileBytes, "a specification")
	if root == nil {
		return nil, errors.Join(errs...)
	}
	s := &Spec{Attention: Tiles}
	p.spec(root, s)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

type parser struct{ yamldoc.Reader }

func (p *parser) spec(root *yaml.Node, s *Spec) {
	positive, orZero := math.SmallestNonzeroFloat64, 0.0
	fields := map[string]yamldoc.Field{
		"hardware": func(f string, n *yaml.Node) {
			if s.Key = p.Text(f, n); s.Key != "" && !keyPattern.MatchString(s.Key) {
				p.Fail(n, f, "found %q, expected letters, digits, '.', '_' and '-' (it names a folder)", s.Key)
			}
		},
		"kind": func(f string, n *yaml.Node) {
			s.Kind = Kind(p.oneOf(f, n, string(GPU), string(Accelerator)))
		},
		"names": func(f string, n *yaml.Node) { s.Names = p.texts(f, n) },
		"compute_units": func(f string, n *yaml.Node) {
			v := p.number(f, n, 1)
			if v != math.Trunc(v) || v > 1e6 {
				p.Fail(n, f, "found %s, expected a whole number up to 1000000", n.Value)
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
	p.Mapping(root, "", fields, "hardware", "kind", "compute_units", "peak_tflops", "memory_gb_per_s", "memory_gb", "launch_us")
}

func (p *parser) oneOf(field string, n *yaml.Node, allowed ...string) string {
	v := p.Text(field, n)
	if v != "" && !slices.Contains(allowed, v) {
		p.Fail(n, field, "found %q, expected %s", v, strings.Join(allowed, " or "))
	}
	return v
}

func (p *parser) texts(field string, n *yaml.Node) []string {
	if n.Kind != yaml.SequenceNode {
		p.Fail(n, field, "found %s, expected a list", yamldoc.Describe(n))
		return nil
	}
	var out []string
	for _, e := range n.Content {
		if v := p.Text(field, e); v != "" {
			out = append(out, v)
		}
	}
	return out
}

func (p *parser) number(field string, n *yaml.Node, least float64) float64 {
	v, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		p.Fail(n, field, "found %s, expected a number", yamldoc.Describe(n))
		return math.Max(least, 1)
	}
	if v < least {
		want := fmt.Sprintf("at least %v", least)
		if least == math.SmallestNonzeroFloat64 {
			want = "above 0"
		}
		p.Fail(n, field, "found %s, expected a number %s", n.Value, want)
		return math.Max(least, 1)
	}
	return v
}

func (p *parser) rates(field string, n *yaml.Node) map[string]float64 {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		p.Fail(n, field, "found %s, expected a rate for each data type, as in {bfloat16: 989.4}", yamldoc.Describe(n))
		return nil
	}
	rates := map[string]float64{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if !slices.Contains(dtypes, key.Value) {
			p.Fail(key, field, "found %q, expected one of %s", key.Value, strings.Join(dtypes, ", "))
			continue
		}
		if _, ok := rates[key.Value]; ok {
			p.Fail(key, field, "%s stands twice", key.Value)
		}
		rates[key.Value] = p.number(field+"."+key.Value, n.Content[i+1], math.SmallestNonzeroFloat64)
	}
	return rates
}
