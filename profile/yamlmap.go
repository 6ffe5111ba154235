package profile

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// yamlMap is a mapping under construction: set replaces a key's value where it
// stands, or adds it at the end.
type yamlMap struct{ node *yaml.Node }

func newYAMLMap() yamlMap { return yamlMap{&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}} }

func (m yamlMap) at(key string) int {
	for i := 0; i+1 < len(m.node.Content); i += 2 {
		if m.node.Content[i].Value == key {
			return i
		}
	}
	return -1
}

func (m yamlMap) set(key string, value any) {
	node := yamlNode(value)
	if i := m.at(key); i >= 0 {
		m.node.Content[i+1] = node
		return
	}
	name := yamlNode(key)
	m.node.Content = append(m.node.Content, name, node)
}

// setOrDrop sets the key, or removes it where there is nothing to say.
func (m yamlMap) setOrDrop(key string, value any, say bool) {
	if say {
		m.set(key, value)
		return
	}
	if i := m.at(key); i >= 0 {
		m.node.Content = slices.Delete(m.node.Content, i, i+2)
	}
}

// yamlNode turns plain values into nodes: maps in the order of their keys, lists
// of scalars in flow style, texts that would read as numbers in quotes.
func yamlNode(value any) *yaml.Node {
	scalar := func(tag, text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text} }
	switch v := value.(type) {
	case *yaml.Node:
		return v
	case yamlMap:
		return v.node
	case nil:
		return scalar("!!null", "null")
	case bool:
		return scalar("!!bool", strconv.FormatBool(v))
	case int:
		return scalar("!!int", strconv.Itoa(v))
	case int64:
		return scalar("!!int", strconv.FormatInt(v, 10))
	case float64:
		return scalar("!!float", floatText(v))
	case string:
		n := &yaml.Node{}
		n.SetString(v)
		if strings.Contains(v, "\n") {
			n.Style = yaml.LiteralStyle
		} else if looksOther(v) {
			n.Style = yaml.SingleQuotedStyle
		}
		return n
	case []int:
		return yamlList(v)
	case []float64:
		return yamlList(v)
	case []string:
		return yamlList(v)
	case []any:
		return yamlList(v)
	case map[string]any:
		m := newYAMLMap()
		for _, k := range slices.Sorted(maps.Keys(v)) {
			m.set(k, v[k])
		}
		return m.node
	case map[string]string:
		m := newYAMLMap()
		for _, k := range slices.Sorted(maps.Keys(v)) {
			m.set(k, v[k])
		}
		return m.node
	}
	// Whatever else a driver's provenance holds goes the way of the encoder.
	n := &yaml.Node{}
	if err := n.Encode(value); err != nil {
		n.SetString("cannot be written: " + err.Error())
	}
	return n
}

func yamlList[T any](values []T) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
	for _, v := range values {
		item := yamlNode(v)
		if item.Kind != yaml.ScalarNode {
			n.Style = 0
		}
		n.Content = append(n.Content, item)
	}
	return n
}

// looksOther reports whether plain text would be read as something else.
func looksOther(text string) bool {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil || len(n.Content) != 1 {
		return true
	}
	return n.Content[0].Kind != yaml.ScalarNode || n.Content[0].Tag != "!!str"
}

// floatText writes a float so that it reads as one: 4.0, 0.0543.
func floatText(v float64) string {
	text := strconv.FormatFloat(v+0, 'g', -1, 64) // no -0
	if !strings.ContainsAny(text, ".en") {
		text += ".0"
	}
	return text
}
