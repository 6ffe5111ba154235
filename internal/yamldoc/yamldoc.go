// Package yamldoc reads small YAML files key by key, so that each problem is
// said with the position of what it is about.
package yamldoc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Problem is what is wrong at a place of a file.
type Problem struct {
	Line   int    // from 1; 0: the file as a whole
	Column int    // from 1, in characters; 0: not known
	Field  string // the path of a key, "" where it is no key's
	Err    error
}

// Reader reads one file. Report is called for each problem.
type Reader struct {
	Report func(Problem)
}

// Fail reports a problem at a node.
func (r *Reader) Fail(n *yaml.Node, field, format string, args ...any) {
	r.Report(Problem{n.Line, n.Column, field, fmt.Errorf(format, args...)})
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// parserError matches the messages of the library's parser, which counts lines
// from 0 where its scanner counts them from 1. The line is that on which what is
// not well formed begins, or that of the error if that is the file's first.
var parserError = regexp.MustCompile(`^(did not find expected (<|node content|'-' indicator|key$|',' or )|found (undefined tag handle|duplicate %|incompatible YAML))`)

// Document is the top of data's one document, nil where there is a problem with
// that. most bounds its size in bytes; what is how an empty file's message ends,
// "a specification" say.
func (r *Reader) Document(data []byte, most int, what string) *yaml.Node {
	whole := &yaml.Node{}
	if len(data) > most {
		r.Fail(whole, "", "found %d bytes, expected at most %d", len(data), most)
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		r.Fail(whole, "", "found an empty file, expected %s", what)
		return nil
	}
	if err == nil {
		if err = decoder.Decode(&second); err == nil {
			r.Fail(&second, "", "found a second document, expected one")
			return nil
		}
	}
	if !errors.Is(err, io.EOF) {
		// The library knows only a line, and leaves out the first one's number.
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		whole.Line = 1
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			whole.Line, _ = strconv.Atoi(m[1])
			text = yamlLine.ReplaceAllString(text, "")
			if parserError.MatchString(text) {
				whole.Line++
			}
			// What is missing at the end is missed behind the last line.
			whole.Line = min(whole.Line, bytes.Count(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))+1)
		}
		r.Fail(whole, "", "%s", text)
		return nil
	}
	return doc.Content[0]
}

// A Field reads a value; path is its key's, for messages.
type Field func(path string, value *yaml.Node)

// Mapping hands each value of a mapping to its field. Those required have to be
// there. path is the mapping's own, "" for the top.
func (r *Reader) Mapping(n *yaml.Node, path string, fields map[string]Field, required ...string) {
	if n.Kind != yaml.MappingNode {
		r.Fail(n, path, "found %s, expected a mapping", Describe(n))
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		read, ok := fields[key.Value]
		switch at := Join(path, key.Value); {
		case !ok:
			r.Fail(key, at, "unknown key, expected one of %s", strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		case seen[key.Value]:
			r.Fail(key, at, "stands twice")
		default:
			seen[key.Value] = true
			read(at, value)
		}
	}
	for _, name := range required {
		if !seen[name] {
			r.Fail(n, Join(path, name), "is missing")
		}
	}
}

// Text is a scalar's text, "" with a problem where there is none.
func (r *Reader) Text(path string, n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "" {
		r.Fail(n, path, "found %s, expected text", Describe(n))
		return ""
	}
	return n.Value
}

// Join is the path of a key within path.
func Join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// Describe says what a node is, for "found ...".
func Describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.Tag == "!!null":
		return "no value"
	}
	return strconv.Quote(n.Value)
}
