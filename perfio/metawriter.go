package perfio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"gopkg.in/yaml.v3"
)

// Set puts a value at a path of keys, which it creates where they are missing;
// keys that are there keep their place. value is anything that YAML can hold,
// or a *yaml.Node. Keys of a Go map are sorted: use a node, or Set one by one,
// where order matters. It is an error if a key on the way holds no mapping.
func (m *Meta) Set(value any, path ...string) error {
	if len(path) == 0 {
		return errors.New("meta: Set without a path")
	}
	node, ok := value.(*yaml.Node)
	if !ok {
		node = &yaml.Node{}
		if err := node.Encode(value); err != nil {
			return fmt.Errorf("meta: %s: %w", dotted(path), err)
		}
	}
	if m.Root == nil {
		m.Root = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	}
	n := m.Root
	for i, key := range path {
		if n.Kind != yaml.MappingNode {
			return fmt.Errorf("meta: %s: found %s, expected a mapping", dotted(path[:i]), describe(n))
		}
		n = slot(n, key)
		if i == len(path)-1 {
			break
		}
		if n.Kind == yaml.AliasNode {
			n = resolved(n)
		}
		if isNull(n) {
			*n = yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		}
	}
	*n = *node
	return nil
}

// slot is the value node of a key, appended as a null where it is missing.
func slot(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	k := &yaml.Node{}
	k.SetString(key)
	// A degree is written as an integer, as in the files that others write.
	if _, ok := degreeOf(key); ok {
		k.Tag = "!!int"
	}
	v := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	n.Content = append(n.Content, k, v)
	return v
}

// Delete removes what stands at a path; it is no error if nothing does.
func (m *Meta) Delete(path ...string) {
	if len(path) == 0 {
		return
	}
	n := m.Get(path[:len(path)-1]...)
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == path[len(path)-1] {
			n.Content = append(n.Content[:i:i], n.Content[i+2:]...)
			return
		}
	}
}

// Clone is a copy that shares nothing with m.
func (m *Meta) Clone() *Meta {
	if m.Root == nil {
		return &Meta{}
	}
	return &Meta{Root: cloneNode(m.Root, map[*yaml.Node]*yaml.Node{})}
}

func cloneNode(n *yaml.Node, done map[*yaml.Node]*yaml.Node) *yaml.Node {
	if n == nil {
		return nil
	}
	if c := done[n]; c != nil {
		return c
	}
	c := *n
	done[n] = &c
	c.Alias = cloneNode(n.Alias, done)
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, item := range n.Content {
		c.Content[i] = cloneNode(item, done)
	}
	return &c
}

// WriteMeta writes a meta.yaml: keys in their order, unknown ones too, lists of
// scalars in flow style. It refuses what ParseMeta would refuse.
func WriteMeta(w io.Writer, m *Meta) error {
	var b bytes.Buffer
	if m == nil || m.Root == nil || len(m.Root.Content) == 0 {
		return fmt.Errorf("%s: found nothing to write, expected keys", MetaFile)
	}
	root := m.Clone().Root
	flowLists(root)
	dotFloats(root)
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(root), encoder.Close()); err != nil {
		return fmt.Errorf("%s: %w", MetaFile, err)
	}
	var p problems
	if parseMeta(b.Bytes(), MetaFile, &p); p.err() != nil {
		return p.err()
	}
	_, err := w.Write(b.Bytes())
	return err
}

func flowLists(n *yaml.Node) {
	flow := n.Kind == yaml.SequenceNode
	for _, item := range n.Content {
		flow = flow && item.Kind == yaml.ScalarNode
		flowLists(item)
	}
	switch {
	case flow:
		n.Style |= yaml.FlowStyle
	case n.Kind == yaml.SequenceNode || n.Kind == yaml.MappingNode && len(n.Content) > 0:
		n.Style &^= yaml.FlowStyle
	}
}

// dotFloats gives every float a point: YAML 1.1, by which Python reads the
// file, takes 1e+06 for text.
func dotFloats(n *yaml.Node) {
	for _, item := range n.Content {
		dotFloats(item)
	}
	if n.Kind != yaml.ScalarNode || n.Tag != "!!float" || strings.Contains(n.Value, ".") {
		return
	}
	if x, ok := nodeFloat(n); ok {
		text := string(appendShortest(nil, x))
		if mantissa, exponent, ok := strings.Cut(text, "e"); ok && !strings.Contains(mantissa, ".") {
			text = mantissa + ".0e" + exponent
		}
		n.Value = text
	}
}
