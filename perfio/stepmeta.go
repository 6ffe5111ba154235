package perfio

import (
	"slices"
	"strconv"
)

// StepCaptureSizes are the batch sizes, in tokens and ascending, that the engine
// of a mode of step.csv has graphs for, as meta.yaml says; nil where it does not.
// The slice is the caller's.
func (m *Meta) StepCaptureSizes(degree int, mode string) []int {
	sizes, ok := nodeList(m.Get("steps", "per_tp", strconv.Itoa(degree), mode, "capture_sizes"), nodeInt)
	if !ok {
		return nil
	}
	slices.Sort(sizes)
	return slices.DeleteFunc(slices.Compact(sizes), func(n int) bool { return n < 1 })
}
