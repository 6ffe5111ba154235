package perfio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Limits of a YAML document, aliases expanded.
const (
	maxYAMLNodes = 1 << 20
	maxYAMLDepth = 64
)

// parseYAML reads one document whose top is a mapping. It refuses a second
// document, a key that stands twice, keys that are not scalars, and more nodes
// or depth than the limits, counted with every alias expanded.
func parseYAML(data []byte, file string, p *problems) *yaml.Node {
	if len(data) > MaxDocumentBytes {
		p.add(&ParseError{File: file, Err: &MismatchError{fmt.Sprintf("%d bytes", len(data)), fmt.Sprintf("at most %d", MaxDocumentBytes)}})
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			p.add(&ParseError{File: file, Line: 1, Err: &MismatchError{"an empty document", "a mapping"}})
		} else {
			p.add(yamlSyntax(file, err))
		}
		return nil
	}
	var second yaml.Node
	switch err := decoder.Decode(&second); {
	case err == nil:
		p.add(yamlProblem(file, &second, "", "a second document", "one"))
		return nil
	case !errors.Is(err, io.EOF):
		p.add(yamlSyntax(file, err))
		return nil
	}
	top := &doc
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		top = doc.Content[0]
	}
	if top.Kind != yaml.MappingNode {
		p.add(yamlProblem(file, top, "", describe(top), "a mapping"))
		return nil
	}
	check := yamlCheck{file: file, p: p}
	if !check.walk(top, "", 0) {
		return nil
	}
	return top
}

type yamlCheck struct {
	file  string
	p     *problems
	nodes int
}

// walk is false where the document is to be refused altogether.
func (c *yamlCheck) walk(n *yaml.Node, path string, depth int) bool {
	c.nodes++
	if c.nodes > maxYAMLNodes {
		c.p.add(yamlProblem(c.file, n, path, fmt.Sprintf("more than %d nodes once aliases are expanded", maxYAMLNodes), "fewer"))
		return false
	}
	if depth > maxYAMLDepth {
		c.p.add(yamlProblem(c.file, n, path, fmt.Sprintf("more than %d levels", maxYAMLDepth), "fewer"))
		return false
	}
	switch n.Kind {
	case yaml.AliasNode:
		return c.walk(n.Alias, path, depth+1)
	case yaml.SequenceNode:
		for _, item := range n.Content {
			if !c.walk(item, path, depth+1) {
				return false
			}
		}
	case yaml.MappingNode:
		seen := make(map[string]int, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode {
				c.p.add(yamlProblem(c.file, k, path, describe(k)+" as a key", "a scalar"))
				return false
			}
			at := joinPath(path, k.Value)
			if line, ok := seen[k.Value]; ok {
				c.p.add(yamlProblem(c.file, k, at, "the key a second time", fmt.Sprintf("only the one on line %d", line)))
			}
			seen[k.Value] = k.Line
			if !c.walk(n.Content[i+1], at, depth+1) {
				return false
			}
		}
	}
	return true
}

func joinPath(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

var yamlLine = regexp.MustCompile(`^yaml: (?:unmarshal errors:\n\s*)?line (\d+): `)

// yamlSyntax takes the line out of the decoder's error; it knows no column.
func yamlSyntax(file string, err error) *ParseError {
	e := &ParseError{File: file, Err: err}
	text := err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		e.Err = errors.New(text[len(m[0]):])
	} else {
		e.Err = errors.New(strings.TrimPrefix(text, "yaml: "))
	}
	return e
}

func yamlProblem(file string, n *yaml.Node, field, found, expected string) *ParseError {
	if n == nil {
		return &ParseError{File: file, Field: field, Err: &MismatchError{found, expected}}
	}
	return &ParseError{File: file, Line: n.Line, Column: n.Column, Field: field, Err: &MismatchError{found, expected}}
}

// describe names a node in messages.
func describe(n *yaml.Node) string {
	if n == nil {
		return "no value"
	}
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return describe(n.Alias)
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "nothing"
		}
		return quoted(n.Value)
	}
	return "no value"
}

// child is the value of a key of a mapping, aliases followed; nil if absent.
func child(n *yaml.Node, key string) *yaml.Node {
	n = resolved(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return resolved(n.Content[i+1])
		}
	}
	return nil
}

func resolved(n *yaml.Node) *yaml.Node {
	for range maxYAMLDepth {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// isNull says whether a node is absent or an explicit null.
func isNull(n *yaml.Node) bool {
	return n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

func nodeInt(n *yaml.Node) (int, bool) {
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag != "!!int" {
		return 0, false
	}
	var v int64
	if err := n.Decode(&v); err != nil {
		return 0, false
	}
	return int(v), int64(int(v)) == v
}

func nodeFloat(n *yaml.Node) (float64, bool) {
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag != "!!int" && n.Tag != "!!float" {
		return 0, false
	}
	var v float64
	if err := n.Decode(&v); err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, false
	}
	return v, true
}

func nodeText(n *yaml.Node) (string, bool) {
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return "", false
	}
	return n.Value, true
}

func nodeBool(n *yaml.Node) (value, ok bool) {
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
		return false, false
	}
	return value, n.Decode(&value) == nil
}

// nodeList reads a list of scalars.
func nodeList[T any](n *yaml.Node, item func(*yaml.Node) (T, bool)) ([]T, bool) {
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil, false
	}
	out := make([]T, 0, len(n.Content))
	for _, c := range n.Content {
		v, ok := item(resolved(c))
		if !ok {
			return nil, false
		}
		out = append(out, v)
	}
	return out, true
}
