package campaign

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/layerprof/layerprof/internal/yamldoc"
	"github.com/layerprof/layerprof/perfio"
)

// What Parse looks at, and what it says, at most.
const (
	maxFileBytes = 4 << 20
	maxProblems  = 100
)

// reserved are flags of profile run that the campaign itself says.
var reserved = []string{"model", "hardware", "variant", "tp", "out", "shard", "gpus", "budget", "config"}

// ReadFile parses the campaign file at path. check says what is wrong with a
// flag of profile run and its value, nil where nothing is.
func ReadFile(path string, check func(flag, value string) error) (*Campaign, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(filepath.Clean(path), data, check)
}

// Parse reads a campaign file; file stands in errors and gives the campaign its
// name where it has none. All problems found are joined, each a
// *perfio.ParseError.
func Parse(file string, data []byte, check func(flag, value string) error) (*Campaign, error) {
	var errs []error
	p := &parser{check: check}
	p.Report = func(problem yamldoc.Problem) {
		if len(errs) < maxProblems {
			errs = append(errs, &perfio.ParseError{File: file, Line: problem.Line, Column: problem.Column, Field: problem.Field, Err: problem.Err})
		}
	}
	root := p.Document(data, maxFileBytes, "a campaign")
	if root == nil {
		return nil, errors.Join(errs...)
	}
	base := filepath.Base(file)
	c := &Campaign{
		File: file, Name: strings.TrimSuffix(base, filepath.Ext(base)), Out: "perf", Program: "profile",
		Attempts: DefaultAttempts, TPs: []int{1},
	}
	c.note("", root)
	p.campaign(root, c)
	if len(errs) == 0 {
		p.exclusions(c)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

type parser struct {
	yamldoc.Reader
	check func(flag, value string) error
}

type field = yamldoc.Field

func (p *parser) campaign(root *yaml.Node, c *Campaign) {
	fields := map[string]field{
		"name":     p.name(&c.Name),
		"out":      p.text(&c.Out),
		"program":  p.text(&c.Program),
		"budget":   p.duration(&c.Budget, 0),
		"attempts": p.count(&c.Attempts, 1, 1000),
		"parallel": p.count(&c.Parallel, 1, 1_000_000),
		"tps":      p.degrees(&c.TPs),
		"shards": func(path string, n *yaml.Node) {
			if n.Kind == yaml.ScalarNode && n.Value == "auto" {
				return
			}
			p.count(&c.Shards, 1, maxShards)(path, n)
		},
		"hardware": each(p, func(path string, n *yaml.Node) {
			h := Hardware{Path: path}
			fields := p.settings(&h.Settings)
			fields["name"] = p.name(&h.Name)
			fields["slurm"] = p.sbatch(&h.Slurm)
			fields["kubernetes"] = p.kubernetes(&h.Kubernetes)
			p.entry(n, path, "name", fields)
			c.Hardware = append(c.Hardware, h)
		}),
		"models": each(p, func(path string, n *yaml.Node) {
			m := Model{Path: path}
			fields := p.settings(&m.Settings)
			fields["id"] = p.text(&m.ID)
			fields["tps"] = p.degrees(&m.TPs)
			p.entry(n, path, "id", fields)
			c.Models = append(c.Models, m)
		}),
		"variants": each(p, func(path string, n *yaml.Node) {
			v := Variant{Path: path}
			fields := p.settings(&v.Settings)
			fields["name"] = p.name(&v.Name)
			p.entry(n, path, "name", fields)
			c.Variants = append(c.Variants, v)
		}),
		"exclude": each(p, func(path string, n *yaml.Node) {
			s := Selection{Path: path}
			p.Mapping(n, path, map[string]field{"hardware": p.text(&s.Hardware), "model": p.text(&s.Model), "variant": p.text(&s.Variant)})
			if s == (Selection{Path: path}) {
				p.Fail(n, path, "found no name, expected a hardware, a model or a variant")
			}
			c.Exclude = append(c.Exclude, s)
		}),
		"slurm":      p.sbatch(&c.Slurm),
		"kubernetes": p.kubernetes(&c.Kubernetes),
	}
	for name, read := range p.settings(&c.Settings) {
		fields[name] = read
	}
	p.Mapping(root, "", fields, "hardware", "models", "driver")
	if len(c.Variants) == 0 {
		c.Variants = []Variant{{}}
	}
	p.distinct(root, c)
}

// entry reads an element of a list: a mapping, or its main field alone.
func (p *parser) entry(n *yaml.Node, path, main string, fields map[string]field) {
	if n.Kind == yaml.ScalarNode {
		fields[main](path, n)
		return
	}
	if main == "name" && strings.HasPrefix(path, "variants") {
		p.Mapping(n, path, fields) // a variant may leave its name to profile run
		return
	}
	p.Mapping(n, path, fields, main)
}

// distinct refuses entries of a list that are the same.
func (p *parser) distinct(root *yaml.Node, c *Campaign) {
	lists := map[string][]string{}
	for _, h := range c.Hardware {
		lists["hardware"] = append(lists["hardware"], h.Name)
	}
	for _, m := range c.Models {
		lists["models"] = append(lists["models"], m.ID)
	}
	for _, v := range c.Variants {
		lists["variants"] = append(lists["variants"], v.Name)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		seen := make(map[string]bool)
		for j, name := range lists[root.Content[i].Value] {
			if seen[name] && j < len(root.Content[i+1].Content) {
				p.Fail(root.Content[i+1].Content[j], fmt.Sprintf("%s[%d]", root.Content[i].Value, j), "%q stands twice", name)
			}
			seen[name] = true
		}
	}
}

// exclusions refuses those that match no bundle, by a name that is mistaken, and
// those that leave none.
func (p *parser) exclusions(c *Campaign) {
	fail := func(path, text string) {
		at := c.places[path]
		p.Report(yamldoc.Problem{Line: at.line, Column: at.column, Field: path, Err: errors.New(text)})
	}
	matched := make([]bool, len(c.Exclude))
	left := 0
	for i := range c.Hardware {
		for j := range c.Models {
			for k := range c.Variants {
				excluded := false
				for n, s := range c.Exclude {
					if s.matches(&c.Hardware[i], &c.Models[j], &c.Variants[k]) {
						matched[n], excluded = true, true
					}
				}
				if !excluded {
					left++
				}
			}
		}
	}
	for n, s := range c.Exclude {
		if !matched[n] {
			fail(s.Path, "matches no bundle, expected names that stand in hardware, models and variants")
		}
	}
	if left == 0 {
		fail("exclude", "leaves no bundle")
	}
}

func each(p *parser, read field) field {
	return func(path string, n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			p.Fail(n, path, "found %s, expected a list", yamldoc.Describe(n))
			return
		}
		if len(n.Content) == 0 {
			p.Fail(n, path, "found an empty list, expected one or more")
		}
		for i, item := range n.Content {
			read(fmt.Sprintf("%s[%d]", path, i), item)
		}
	}
}

// settings are the fields that the top and every entry have.
func (p *parser) settings(s *Settings) map[string]field {
	flag := func(name string) field {
		return func(path string, n *yaml.Node) { p.flag(s, path, name, n, n) }
	}
	return map[string]field{
		"driver": flag("driver"),
		"plan": func(path string, n *yaml.Node) {
			if n.Kind == yaml.ScalarNode {
				p.flag(s, path, "plan", n, n)
				return
			}
			p.flags(s, path, n)
		},
		"flags": func(path string, n *yaml.Node) { p.flags(s, path, n) },
		"engine-args": func(path string, n *yaml.Node) {
			s.EngineArgs = p.options(path, n, func(path string, key, value *yaml.Node) (string, bool) {
				text := p.Text(path, value)
				if strings.ContainsAny(key.Value+text, ",\"\n") {
					p.Fail(value, path, "found %q, expected no comma, quote or line end: write engine arguments that have any in a file for --config", text)
					return "", false
				}
				return text, text != ""
			})
		},
	}
}

func (p *parser) flags(s *Settings, path string, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		p.Fail(n, path, "found %s, expected a mapping of flags to values", yamldoc.Describe(n))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		p.flag(s, yamldoc.Join(path, n.Content[i].Value), n.Content[i].Value, n.Content[i], n.Content[i+1])
	}
}

// flag reads a flag of profile run.
func (p *parser) flag(s *Settings, path, name string, key, n *yaml.Node) {
	if slices.Contains(reserved, name) {
		p.Fail(key, path, "a campaign says this by keys of its own, not by the flag")
		return
	}
	if slices.ContainsFunc(s.Flags, func(o Option) bool { return o.Name == name }) {
		p.Fail(key, path, "%s stands twice", name)
		return
	}
	var value string
	if n.Kind == yaml.SequenceNode {
		var parts []string
		for i, item := range n.Content {
			parts = append(parts, p.Text(fmt.Sprintf("%s[%d]", path, i), item))
		}
		value = strings.Join(parts, ",")
	} else if value = p.Text(path, n); value == "" {
		return
	}
	if err := p.check(name, value); err != nil {
		p.Fail(key, path, "%w", err)
		return
	}
	s.Flags = append(s.Flags, Option{name, value, path})
}

// options reads a mapping of names to values, in its order.
func (p *parser) options(path string, n *yaml.Node, read func(path string, key, value *yaml.Node) (string, bool)) []Option {
	if n.Kind != yaml.MappingNode {
		p.Fail(n, path, "found %s, expected a mapping", yamldoc.Describe(n))
		return nil
	}
	var out []Option
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if slices.ContainsFunc(out, func(o Option) bool { return o.Name == key.Value }) {
			p.Fail(key, yamldoc.Join(path, key.Value), "stands twice")
			continue
		}
		at := yamldoc.Join(path, key.Value)
		if text, ok := read(at, key, value); ok {
			out = append(out, Option{key.Value, text, at})
		}
	}
	return out
}

var sbatchOption = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// sbatch reads long options of sbatch; one without a value is a switch.
func (p *parser) sbatch(to *[]Option) field {
	return func(path string, n *yaml.Node) {
		*to = p.options(path, n, func(path string, key, value *yaml.Node) (string, bool) {
			switch {
			case !sbatchOption.MatchString(key.Value):
				p.Fail(key, path, "found %q, expected a long option of sbatch without its dashes", key.Value)
			case key.Value == "array" || key.Value == "requeue" || key.Value == "no-requeue" || key.Value == "wrap":
				p.Fail(key, path, "the campaign says this itself")
			case value.Kind == yaml.ScalarNode && value.Tag == "!!null":
				return "", true
			case strings.ContainsAny(value.Value, "\n\r"):
				p.Fail(value, path, "found a line end, expected one line")
			default:
				text := p.Text(path, value)
				return text, text != ""
			}
			return "", false
		})
	}
}

func (p *parser) kubernetes(k *Kubernetes) field {
	return func(path string, n *yaml.Node) {
		p.Mapping(n, path, map[string]field{
			"namespace": p.name(&k.Namespace), "image": p.text(&k.Image), "claim": p.name(&k.Claim), "storage": p.text(&k.Storage),
			"storage-class": p.text(&k.StorageClass), "access-mode": p.text(&k.AccessMode), "gpu-resource": p.text(&k.GPUResource),
			"secret": p.name(&k.Secret), "grace-period": p.duration(&k.GracePeriod, time.Second),
			"mount": func(path string, n *yaml.Node) {
				if p.text(&k.Mount)(path, n); k.Mount != "" && !strings.HasPrefix(k.Mount, "/") {
					p.Fail(n, path, "found %q, expected an absolute path", k.Mount)
				}
			},
			"gpus": func(path string, n *yaml.Node) {
				p.count(&k.GPUs, 0, 64)(path, n)
				if k.GPUs == 0 {
					k.GPUs = -1
				}
			},
			"node-selector": func(path string, n *yaml.Node) {
				k.NodeSelector = p.options(path, n, func(path string, _, value *yaml.Node) (string, bool) {
					text := p.Text(path, value)
					return text, text != ""
				})
			},
			"pod": func(path string, n *yaml.Node) {
				if n.Kind != yaml.MappingNode {
					p.Fail(n, path, "found %s, expected a mapping", yamldoc.Describe(n))
					return
				}
				k.Pod = n
			},
		})
	}
}

func (p *parser) text(to *string) field {
	return func(path string, n *yaml.Node) { *to = p.Text(path, n) }
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// name reads what names a folder, a file or a job.
func (p *parser) name(to *string) field {
	return func(path string, n *yaml.Node) {
		if *to = p.Text(path, n); *to != "" && !namePattern.MatchString(*to) {
			p.Fail(n, path, "found %q, expected letters, digits, '.', '_' and '-'", *to)
		}
	}
}

func (p *parser) count(to *int, least, most int) field {
	return func(path string, n *yaml.Node) {
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || v < least || v > most {
			p.Fail(n, path, "found %s, expected a whole number from %d to %d", yamldoc.Describe(n), least, most)
			return
		}
		*to = v
	}
}

func (p *parser) duration(to *time.Duration, least time.Duration) field {
	return func(path string, n *yaml.Node) {
		v, err := time.ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || v <= 0 || v < least {
			p.Fail(n, path, "found %s, expected a time as in 4h or 90m", yamldoc.Describe(n))
			return
		}
		*to = v
	}
}

func (p *parser) degrees(to *[]int) field {
	return func(path string, n *yaml.Node) {
		var list []int
		one := func(path string, n *yaml.Node) {
			v := 0
			p.count(&v, 1, 1024)(path, n)
			if slices.Contains(list, v) && v > 0 {
				p.Fail(n, path, "%d stands twice", v)
			}
			list = append(list, v)
		}
		if n.Kind == yaml.ScalarNode {
			one(path, n)
		} else {
			each(p, one)(path, n)
		}
		*to = list
	}
}
