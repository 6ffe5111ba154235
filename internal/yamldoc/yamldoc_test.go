package yamldoc

import (
	"fmt"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestProblems(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "0:0 : found an empty file, expected a thing"},
		{"# only this\n", "0:0 : found an empty file, expected a thing"},
		{"a: 1\n---\na: 2\n", "2:1 : found a second document, expected one"},
		{"a: [\n", "1:0 : did not find expected node content"},
		{"a: 1\nb: x: y\n", "2:0 : mapping values are not allowed in this context"},
		{"a: 1\nb: [1,\n  2\n", "2:0 : did not find expected ',' or ']'"},
		{"a: 1\nb: {c: 1\nd: 2\n", "2:0 : did not find expected ',' or '}'"},
		{"a: 1\nb:\n  c: 1\n  - d\n", "3:0 : did not find expected key"},
		{"a: 1\nb:\n  - c\n  d: 1\n", "3:0 : did not find expected '-' indicator"},
		{"a: 1\nb: ]\n", "2:0 : did not find expected node content"},
		{"a: 1\nb: !x!y 1\n", "2:0 : found undefined tag handle"},
		{"a: 1\nb: @c\n", "2:0 : found character that cannot start any token"},
		{"a: 1\nb: \"c\n", "2:0 : found unexpected end of stream"},
		{"a: \"1\n\n", "2:0 : found unexpected end of stream"},
		{strings.Repeat("a", 2000), "0:0 : found 2000 bytes, expected at most 1000"},
		{"[1]\n", "1:1 : found a list, expected a mapping"},
		{"a: 1\na: 2\n", "2:1 a: stands twice"},
		{"c: 1\n", "1:1 c: unknown key, expected one of a, b; 1:1 a: is missing"},
		{"a:\n", "1:3 a: found no value, expected text"},
		{"a: x\nb: {a: [1]}\n", "2:8 b.a: found a list, expected text"},
		{"a: x\nb: {}\n", "2:4 b.a: is missing"},
		{"a: x\nb: {a: y}\n", ""},
	} {
		var found []string
		r := Reader{Report: func(p Problem) {
			found = append(found, fmt.Sprintf("%d:%d %s: %v", p.Line, p.Column, p.Field, p.Err))
		}}
		text := func(path string, n *yaml.Node) { r.Text(path, n) }
		if root := r.Document([]byte(test.text), 1000, "a thing"); root != nil {
			r.Mapping(root, "", map[string]Field{"a": text, "b": func(path string, n *yaml.Node) {
				r.Mapping(n, path, map[string]Field{"a": text}, "a")
			}}, "a")
		}
		if got := strings.Join(found, "; "); got != test.want {
			t.Errorf("%.20q: %s, expected %s", test.text, got, test.want)
		}
	}
}
