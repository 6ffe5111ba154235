// Package replay is a driver that answers from a measured bundle: the whole
// pipeline on real numbers without the device. What it returns is replayed, and
// everything that shows it says so.
//
//	options, err := replay.Parse("perf/H200/meta-llama/Llama-3.1-8B/bf16,noise=0.01,seed=7")
//	source, err := replay.Open(options)
//	driver := source.NewDriver() // and another whenever a fresh one is wanted
//
// # What it answers
//
// A shot is answered from the file of its category: a skew shot by its case and
// role from skew.csv, even where attention.csv holds the same batch, for the
// source measured each by itself. Layers that are tp_stable come from tp1. The
// times are as the file has them; those of skew.csv may be sums over the timed
// runs, which its Meta.SkewStatistic says and the engine's provenance repeats.
//
// Where the source has no row the shot is Infeasible, and the message names the
// row; with Options.Interpolate, traceloader's parity rules answer instead
// (nanoseconds, rounded), within the tables that there are.
//
// skew.csv rounds its times after alpha was computed. Open looks for times
// inside of the rounding intervals from which the recorded alpha follows, the
// printed ones where they do; a row whose alpha cannot follow from its times
// (an edited one) is answered as printed.
//
// # Faults
//
// Noise, drift and failures are drawn from Options.Seed, the shot, what was
// injected, and how often this Source has been asked for the shot: the second
// attempt is drawn again, so that a retry may succeed, and another process
// draws the same as this one. Drift alone goes by the number of shots that the
// Source has answered, as a device's does by time.
//
// A Source may be used by several drivers at once; a Driver by one goroutine.
package replay
