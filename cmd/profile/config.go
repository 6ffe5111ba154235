package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"
)

// applyConfig sets the command's flags from a YAML file whose keys are flag
// names, but for those that the command line has set. One file may serve
// several commands: a key that is another command's flag is passed over.
func applyConfig(cmd *cobra.Command, path string) error {
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(document.Content) == 0 {
		return nil // an empty file
	}
	mapping := document.Content[0]
	if mapping.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d:%d: found a %s, expected a mapping of flag names to values",
			path, mapping.Line, mapping.Column, nodeKind(mapping))
	}
	known := flagNames(cmd.Root())
	var errs []error
	seen := make(map[string]bool)
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		if err := applyKey(cmd, known, seen, key, value); err != nil {
			errs = append(errs, fmt.Errorf("%s:%d:%d: %s: %w", path, key.Line, key.Column, key.Value, err))
		}
	}
	return errors.Join(errs...)
}

func applyKey(cmd *cobra.Command, known, seen map[string]bool, key, value *yaml.Node) error {
	name := key.Value
	switch {
	case !known[name]:
		return fmt.Errorf("unknown key, expected the name of a flag%s", nearest(name, known))
	case seen[name]:
		return errors.New("stands twice")
	}
	seen[name] = true
	text, err := flagText(value)
	if err != nil {
		return err
	}
	flag := cmd.Flags().Lookup(name)
	if flag == nil || flag.Changed {
		return nil
	}
	return cmd.Flags().Set(name, text)
}

// flagText writes a YAML value as a command line would have it.
func flagText(value *yaml.Node) (string, error) {
	switch value.Kind {
	case yaml.ScalarNode:
		if value.Tag == "!!null" {
			return "", errors.New("has no value")
		}
		return value.Value, nil
	case yaml.SequenceNode:
		var parts []string
		for _, item := range value.Content {
			if item.Kind != yaml.ScalarNode {
				return "", fmt.Errorf("found a %s in the list, expected plain values", nodeKind(item))
			}
			parts = append(parts, item.Value)
		}
		return strings.Join(parts, ","), nil
	case yaml.MappingNode:
		var parts []string
		for i := 0; i+1 < len(value.Content); i += 2 {
			if value.Content[i+1].Kind != yaml.ScalarNode {
				return "", fmt.Errorf("%s: found a %s, expected a plain value", value.Content[i].Value, nodeKind(value.Content[i+1]))
			}
			parts = append(parts, value.Content[i].Value+"="+value.Content[i+1].Value)
		}
		return strings.Join(parts, ","), nil
	}
	return "", fmt.Errorf("found a %s, expected a value or a list", nodeKind(value))
}

func nodeKind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "list"
	case yaml.MappingNode:
		return "mapping"
	case yaml.AliasNode:
		return "alias"
	}
	return "plain value"
}

// flagNames collects the flags of a command and of all below it.
func flagNames(cmd *cobra.Command) map[string]bool {
	names := make(map[string]bool)
	collect := func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" {
			names[f.Name] = true
		}
	}
	cmd.Flags().VisitAll(collect)
	for _, child := range cmd.Commands() {
		for name := range flagNames(child) {
			names[name] = true
		}
	}
	return names
}

// nearest suggests the flag that a misspelt key may mean.
func nearest(name string, known map[string]bool) string {
	dashed := strings.ReplaceAll(name, "_", "-")
	if known[dashed] {
		return fmt.Sprintf(" (%s?)", dashed)
	}
	var starts []string
	for k := range known {
		if len(dashed) >= 3 && (strings.HasPrefix(k, dashed) || strings.Contains(k, dashed)) {
			starts = append(starts, k)
		}
	}
	if len(starts) == 0 {
		return ""
	}
	slices.Sort(starts)
	return fmt.Sprintf(" (%s?)", strings.Join(starts, ", "))
}
