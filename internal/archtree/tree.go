// Package archtree matches an architecture file against the modules of a real
// model, and drafts such a file for a model that has none.
package archtree

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/perfio"
)

// Module is one module of a model: its qualified name, "" for the model itself,
// and the name of its class.
type Module struct {
	Name  string `json:"name"`
	Class string `json:"class"`
}

// Parse reads modules: a JSON array, an object whose "modules" is one, or a
// module a line. file stands in errors.
func Parse(text []byte, file string) ([]Module, error) {
	var modules []Module
	trimmed := bytes.TrimSpace(text)
	var whole struct {
		Modules []Module `json:"modules"`
	}
	switch {
	case bytes.HasPrefix(trimmed, []byte("[")):
		if err := json.Unmarshal(trimmed, &modules); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	case json.Unmarshal(trimmed, &whole) == nil && whole.Modules != nil:
		modules = whole.Modules
	default:
		for i, line := range bytes.Split(text, []byte("\n")) {
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			var m Module
			if err := json.Unmarshal(line, &m); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
			}
			modules = append(modules, m)
		}
	}
	seen := make(map[string]bool)
	for _, m := range modules {
		if m.Class == "" {
			return nil, fmt.Errorf("%s: module %q has no class", file, m.Name)
		}
		if seen[m.Name] {
			return nil, fmt.Errorf("%s: module %q stands twice", file, m.Name)
		}
		seen[m.Name] = true
	}
	if len(modules) == 0 {
		return nil, fmt.Errorf("%s: holds no module, expected {\"name\": ..., \"class\": ...} in each line", file)
	}
	return modules, nil
}

// tree answers who stands above whom.
type tree struct {
	modules []Module
	class   map[string]string
}

func newTree(modules []Module) tree {
	t := tree{modules: modules, class: make(map[string]string, len(modules))}
	for _, m := range modules {
		t.class[m.Name] = m.Class
	}
	return t
}

// ancestors are the modules above name, nearest first. A name on the way that is
// no module (a list of layers) is passed over.
func (t tree) ancestors(name string) []Module {
	var above []Module
	for name != "" {
		name = name[:max(strings.LastIndexByte(name, '.'), 0)]
		if class, ok := t.class[name]; ok {
			above = append(above, Module{name, class})
		}
	}
	return above
}

func (t tree) parent(name string) Module {
	if above := t.ancestors(name); len(above) > 0 {
		return above[0]
	}
	return Module{}
}

func (t tree) leaf(name string) bool {
	if name == "" {
		return len(t.modules) == 1
	}
	return !slices.ContainsFunc(t.modules, func(m Module) bool { return strings.HasPrefix(m.Name, name+".") })
}

// Match says which modules belong to each catalog entry, by layer name: a module
// belongs to the entry whose class is its own and whose within is the class of
// its nearest such ancestor; an entry without within comes last.
func Match(arch *perfio.Architecture, modules []Module) map[string][]string {
	t := newTree(modules)
	matches := make(map[string][]string)
	for _, m := range modules {
		above := t.ancestors(m.Name)
		best, depth := "", -1
		for _, entry := range arch.Catalog {
			if !slices.Contains(entry.VLLM, m.Class) {
				continue
			}
			at := len(above) // weaker than any ancestor
			if entry.Within != "" {
				at = slices.IndexFunc(above, func(a Module) bool { return a.Class == entry.Within })
				if at < 0 {
					continue
				}
			}
			if depth < 0 || at < depth {
				best, depth = entry.Layer, at
			}
		}
		if best != "" {
			matches[best] = append(matches[best], m.Name)
		}
	}
	return matches
}

// Unmatched lists the modules without children that belong to no entry and do
// not stand below one that does.
func Unmatched(arch *perfio.Architecture, modules []Module) []Module {
	t := newTree(modules)
	matched := make(map[string]bool)
	for _, names := range Match(arch, modules) {
		for _, name := range names {
			matched[name] = true
		}
	}
	var out []Module
	for _, m := range modules {
		covered := matched[m.Name] || slices.ContainsFunc(t.ancestors(m.Name), func(a Module) bool { return matched[a.Name] })
		if !covered && t.leaf(m.Name) {
			out = append(out, m)
		}
	}
	return out
}
