package traceloader

import (
	"fmt"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// resolveModel finds the model's config and the architecture: those of the
// options, else the shipped ones that meta.yaml names. A table without them
// answers lookups; what it cannot do is a warning.
func (t *Table) resolveModel(m *perfio.Meta) error {
	if m == nil || m.Root == nil {
		return nil
	}
	// Only shipped names: a bundle must not choose a file to be opened.
	if name := m.Model(); t.model == nil && slices.Contains(perfio.ModelConfigs(), name) {
		c, err := perfio.LoadModelConfig(name)
		if err != nil {
			return fmt.Errorf("traceloader: %w", err)
		}
		t.model = c
	}
	name := m.Architecture()
	if name == "" && t.model != nil {
		name = t.model.ModelType
	}
	if t.arch != nil || name == "" {
		return nil
	}
	if !slices.Contains(perfio.Architectures(), name) {
		t.warnings = append(t.warnings, fmt.Sprintf("meta.yaml: architecture: %q is not a shipped one: layers are read at their own degree, and there is no walk unless Options.Architecture says it", name))
		return nil
	}
	a, err := perfio.LoadArchitecture(name)
	if err != nil {
		return fmt.Errorf("traceloader: %w", err)
	}
	t.arch = a
	return nil
}
