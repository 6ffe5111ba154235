package archtree

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// entry is one line of the drafted catalog.
type entry struct {
	layer, category string
	classes         []string
	within          string
	stable          bool
	count           int // modules in a decoder block, or in all outside of it
}

// silent are the classes whose time another module's call holds: they have
// parameters but are not called, or are called inside a fused kernel.
var silent = []string{"ParallelLMHead", "Identity", "PPMissingLayer"}

// Draft writes an architecture file for a model's modules. It goes by what the
// engine's classes are called, so it is a draft: the sequence above all has to
// be read by somebody who knows the model. The notes say what was left out and
// what is doubtful.
func Draft(modules []Module) (text string, notes []string, err error) {
	d := drafter{tree: newTree(modules)}
	for _, m := range modules {
		d.add(m)
	}
	d.disambiguate()
	if n := d.countOf("attention"); n != 1 {
		return "", d.notes, fmt.Errorf("found %d kinds of attention modules, expected one whose class is Attention or ends in Attention and has no children", n)
	}
	return d.text(), d.notes, nil
}

type drafter struct {
	tree
	entries []*entry
	notes   []string
}

func (d *drafter) countOf(category string) int {
	n := 0
	for _, e := range d.entries {
		if e.category == category {
			n++
		}
	}
	return n
}

// add sorts one module into an entry, unless another one's call holds its time.
func (d *drafter) add(m Module) {
	moe := d.isMoE(m)
	if (!moe && !d.leaf(m.Name)) || slices.Contains(silent, m.Class) || d.insideMoE(m) {
		return
	}
	e := d.entryFor(m)
	if moe {
		e = entry{layer: "moe", category: "moe"}
	}
	e.classes = []string{m.Class}
	for _, known := range d.entries {
		if known.layer != e.layer {
			continue
		}
		if known.within == e.within || known.within == "" || e.within == "" {
			if !slices.Contains(known.classes, m.Class) {
				known.classes = append(known.classes, m.Class)
			}
			if firstBlock(m.Name) {
				known.count++
			}
			return
		}
	}
	if firstBlock(m.Name) {
		e.count = 1
	}
	d.entries = append(d.entries, &e)
}

// firstBlock says whether a module stands in the first decoder block, or
// outside of the blocks.
func firstBlock(name string) bool {
	for _, part := range strings.Split(name, ".") {
		if part != "" && strings.Trim(part, "0123456789") == "" {
			return part == "0"
		}
	}
	return true
}

// isMoE: the block that holds the fused experts, gate and all.
func (d *drafter) isMoE(m Module) bool {
	return slices.ContainsFunc(d.modules, func(c Module) bool {
		return strings.Contains(c.Class, "FusedMoE") && d.parent(c.Name).Name == m.Name && m.Name != ""
	})
}

func (d *drafter) insideMoE(m Module) bool {
	return slices.ContainsFunc(d.ancestors(m.Name), d.isMoE)
}

// entryFor guesses what a module is from its class, its name and what stands
// above it.
func (d *drafter) entryFor(m Module) entry {
	last := m.Name[strings.LastIndexByte(m.Name, '.')+1:]
	parent := d.parent(m.Name)
	switch class := m.Class; {
	case class == "Attention" || strings.HasSuffix(class, "Attention"):
		return entry{layer: "attention", category: "attention"}
	case class == "LogitsProcessor":
		return entry{layer: "lm_head", category: "per_sequence"}
	case class == "Sampler":
		return entry{layer: "sampler", category: "per_sequence", stable: true}
	case strings.Contains(class, "Embedding") && !strings.Contains(class, "Rotary"):
		return entry{layer: "embedding", category: "dense"}
	case strings.Contains(class, "RotaryEmbedding"):
		return entry{layer: "rotary_emb", category: "dense"}
	case strings.HasPrefix(class, "QKV"):
		return entry{layer: "qkv_proj", category: "dense"}
	case strings.HasSuffix(class, "Norm"):
		return d.norm(m, parent)
	case class == "MergedColumnParallelLinear":
		return entry{layer: "gate_up_proj", category: "dense"}
	case strings.Contains(class, "AndMul") || strings.HasPrefix(last, "act"):
		return entry{layer: "act_fn", category: "dense"}
	default:
		return entry{layer: layerName(last), category: "dense", within: parent.Class}
	}
}

// layerName makes a plain word of a module's name.
func layerName(name string) string {
	word := strings.Map(func(r rune) rune {
		if r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, name)
	return cmp.Or(strings.Trim(word, "0123456789"), "layer")
}

// norm tells the norms of a block, of its attention and of the model apart.
func (d *drafter) norm(m Module, parent Module) entry {
	above := d.ancestors(m.Name)
	switch {
	case strings.HasSuffix(parent.Class, "Attention"):
		return entry{layer: "qk_norm", category: "dense", within: parent.Class, stable: true}
	case strings.HasSuffix(parent.Class, "DecoderLayer") || strings.HasSuffix(parent.Class, "Block"):
		return entry{layer: "layernorm", category: "dense", within: parent.Class, stable: true}
	case len(above) > 0:
		return entry{layer: "final_layernorm", category: "dense", within: above[len(above)-1].Class, stable: true}
	}
	return entry{layer: "final_layernorm", category: "dense", stable: true}
}

// disambiguate tells layers of one name apart, and notes what is missing.
func (d *drafter) disambiguate() {
	seen := make(map[string]int)
	for _, e := range d.entries {
		if seen[e.layer]++; seen[e.layer] > 1 {
			d.notes = append(d.notes, fmt.Sprintf("%s stands below %s too; the second is called %s_%d", e.layer, e.within, e.layer, seen[e.layer]))
			e.layer = fmt.Sprintf("%s_%d", e.layer, seen[e.layer])
		}
	}
	for _, layer := range []string{"embedding", "final_layernorm", "lm_head", "sampler"} {
		if seen[layer] == 0 {
			d.notes = append(d.notes, layer+": no module is one, as far as class names tell")
		}
	}
}

// text writes the file.
func (d *drafter) text() string {
	placed := make(map[string]bool)
	pick := func(layers ...string) []string {
		var found []string
		for _, layer := range layers {
			if slices.ContainsFunc(d.entries, func(e *entry) bool { return e.layer == layer }) {
				found = append(found, layer)
				placed[layer] = true
			}
		}
		return found
	}
	post := pick("o_proj")
	for _, e := range d.entries {
		if e.layer == "layernorm" {
			if e.count > 2 {
				d.notes = append(d.notes, fmt.Sprintf("a block has %d layernorms: see where they stand in the sequence", e.count))
			}
			for range e.count - 1 {
				post = append(post, "layernorm")
			}
		}
	}
	sequence := []struct {
		name   string
		layers []string
	}{
		{"prologue", pick("embedding")},
		{"pre_attn", pick("layernorm", "qkv_proj", "qk_norm", "rotary_emb", "attention")},
		{"post_attn", post},
		{"mlp_dense", pick("gate_up_proj", "act_fn", "down_proj")},
		{"mlp_moe", pick("moe")},
		{"head", pick("final_layernorm", "lm_head", "sampler")},
	}
	var b strings.Builder
	b.WriteString("# A draft: check the sequence, and every layer that it does not name.\nsequence:\n")
	for _, s := range sequence {
		if len(s.layers) > 0 {
			fmt.Fprintf(&b, "  %s: [%s]\n", s.name, strings.Join(s.layers, ", "))
		}
	}
	b.WriteString("catalog:\n")
	for _, category := range []string{"dense", "per_sequence", "attention", "moe"} {
		if d.countOf(category) == 0 {
			continue
		}
		fmt.Fprintf(&b, "  %s:\n", category)
		for _, e := range d.entries {
			if e.category != category {
				continue
			}
			if !placed[e.layer] {
				d.notes = append(d.notes, fmt.Sprintf("%s (%s): no place in the sequence is known", e.layer, strings.Join(e.classes, ", ")))
			}
			fmt.Fprintf(&b, "    %s: {vllm: %s", e.layer, classList(e.classes))
			if e.within != "" {
				fmt.Fprintf(&b, ", within: %s", e.within)
			}
			if e.stable {
				b.WriteString(", tp_stable: true")
			}
			b.WriteString("}\n")
		}
	}
	return b.String()
}

func classList(classes []string) string {
	if len(classes) == 1 {
		return classes[0]
	}
	return "[" + strings.Join(classes, ", ") + "]"
}
