// Package traceloader answers how long a layer takes for a batch, from a
// measured bundle, in integer nanoseconds.
//
//	table, err := traceloader.Open("perf/H200/meta-llama/Llama-3.1-8B/bf16", traceloader.Options{})
//	if err != nil {
//		return err
//	}
//	qkv, ok := table.Dense(1, "qkv_proj") // names are resolved once …
//	attention, ok := table.Attention(1)
//	walk, err := table.Walk(1)
//	ns, ok := qkv.LatencyNS(512) // … and lookups take integers
//	ns, ok = attention.BatchLatencyNS(requests)
//	var step traceloader.Step // reused from batch to batch
//	ok = walk.Step(traceloader.NewBatch(requests), &step)
//
// # Rules
//
// Parity, the zero value of Options.Rules, returns exactly the integers of
// LLMServingSim 2.0 for the same bundle: curves over one axis, four-dimensional
// interpolation of attention on a ragged grid, and its correction for decodes
// of different history. It clamps below what was measured and extrapolates
// beyond; Options.Refuse answers (0, false) there instead, and the Explain
// methods tell for any lookup whether it was measured, interpolated, clamped,
// extrapolated, borrowed or a fallback. Accurate stands behind the same handles.
//
// # Names, units, concurrency
//
// Latencies are nanoseconds per call of one layer, at least 1. Tokens,
// sequences and KV histories are counts; up to 2^53 they give the exact integers,
// and latencies saturate at the greatest int64. A Table and its handles never change
// after New: any number of goroutines may use them, without locks. Lookups
// allocate nothing. A false beside a latency means that there is no number.
//
// # Errors
//
// Open returns perfio's *ParseError and *ProblemsError, which say file, line and
// column. New, which has no files, says tp, file and row. No lookup panics or
// returns an error.
//
// Note: lookups do not go through gonum's interp package. PiecewiseLinear
// multiplies by a slope that was divided beforehand, which gives other integers
// than the reference's order of operations where keys are not powers of two
// apart; it does not extrapolate; and its search makes it several times slower.
// The tests hold the curves against it.
package traceloader
