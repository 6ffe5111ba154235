package perfio

import (
	"strconv"

	"gopkg.in/yaml.v3"
)

// CaptureSizes are the batch sizes that the engine had graphs for when a mode's
// steps were measured, ascending as the file has them: smaller batches are padded
// to the next one. nil where the mode has none or was not measured.
func (m *Meta) CaptureSizes(tp int, mode string) []int {
	sizes, _ := nodeList(m.Get("steps", "per_tp", strconv.Itoa(tp), mode, "capture_sizes"), nodeInt)
	return sizes
}

// steps checks what CaptureSizes reads.
func (c metaCheck) steps() {
	block := c.m.Get("steps", "per_tp")
	if isNull(block) {
		return
	}
	if block.Kind != yaml.MappingNode {
		c.p.add(yamlProblem(c.file, block, "steps.per_tp", describe(block), "a mapping"))
		return
	}
	for i := 0; i+1 < len(block.Content); i += 2 {
		for _, mode := range StepModes() {
			path := []string{"steps", "per_tp", block.Content[i].Value, mode, "capture_sizes"}
			n := c.m.Get(path...)
			if isNull(n) {
				continue
			}
			if n.Kind != yaml.SequenceNode {
				c.p.add(yamlProblem(c.file, n, dotted(path), describe(n), "a list of integers"))
				continue
			}
			last := 0
			for _, item := range n.Content {
				item = resolved(item)
				v, ok := nodeInt(item)
				if !ok || v <= last || v > MaxKey {
					c.p.add(yamlProblem(c.file, item, dotted(path), describe(item), "ascending integers from 1"))
					break
				}
				last = v
			}
		}
	}
}
