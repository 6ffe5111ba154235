// Package attnmodel predicts how long an attention kernel takes for a batch
// given request by request: which tiles the kernel cuts the batch into, in
// which order the device's multiprocessors take them, and how long the last
// one runs. What a tile costs is fitted to measurements.
//
//	g := attnmodel.Geometry{QueryHeads: 32, KVHeads: 8, SMs: 132}
//	p := attnmodel.FitFA3(g, samples, attnmodel.FA3Defaults())
//	us := attnmodel.NewFA3(g, p).TimeUS(runs)
//
// Two kernels are known: FlashAttention-2 (FA2) and FlashAttention-3 (FA3).
// Models are immutable once made and safe for any number of goroutines.
package attnmodel
