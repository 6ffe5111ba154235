package traceloader

import "github.com/layerprof/layerprof/perfio"

// Rules says by which rules a table answers. It is chosen when the table is
// built; the handles are the same for all of them.
type Rules uint8

const (
	// Parity answers exactly the integers that LLMServingSim 2.0 returns for
	// the same bundle.
	Parity Rules = iota
	// Accurate answers by models of the kernels calibrated on the bundle.
	Accurate
)

// String returns the name that commands use.
func (r Rules) String() string {
	switch r {
	case Parity:
		return "parity"
	case Accurate:
		return "accurate"
	}
	return "unknown"
}

// Options says how a table is built. The zero value is parity, extrapolating
// where LLMServingSim does, refusing what perfio refuses.
type Options struct {
	// Rules by which lookups answer; Parity where nothing is said.
	Rules Rules
	// Refuse makes lookups answer (0, false) where they would extrapolate
	// beyond the measured range. Values below the range, which are clamped to
	// its edge, are still answered.
	Refuse bool
	// Lenient takes the first of duplicate keys, as LLMServingSim does, and
	// walks past layers of the sequence that were not measured. Table.Warnings
	// says where.
	Lenient bool
	// Architecture overrides the one that meta.yaml names.
	Architecture *perfio.Architecture
	// Model overrides the config of the model that meta.yaml names; the walk
	// takes the depth and the numbers of experts from it.
	Model *perfio.ModelConfig
	// IgnoreCalibration makes the accurate rules calibrate anew, whatever
	// calibration.json beside the bundle says.
	IgnoreCalibration bool
}
