// Package roofline is a driver that computes latencies from the public figures
// of a device and a model's config: the embedded default of cmd/profile, and
// the way in for an accelerator that no engine runs on. What it returns is
// synthetic, and everything that shows it says so.
//
//	spec, _ := hardware.ByKey("H200") // or hardware.ReadFile for one of your own
//	driver, err := roofline.New(roofline.Options{Spec: spec})
//	engine, err := driver.Boot(ctx, profile.EngineSpec{Model: config, ...})
//	err = driver.Measure(ctx, shots, options, yield)
//
// # The model
//
//   - A kernel takes at least launch_us.
//   - Matrix products: the best of eight tile sizes and of splits of the inner
//     dimension; tiles run in waves over the compute units; weights are read
//     from memory, activations from the last cache as far as they fit. Compute
//     and reading overlap.
//   - Attention: every tile of every request in the kernel's order (by spec:
//     FlashAttention-2, FlashAttention-3 or plain tiles), on the unit that is
//     free first; the time is the makespan, overlapped with reading the KV
//     history once. Short batches split the history as those kernels do.
//   - Layers that move bytes: by bytes. MoE: the gate, the weights of the
//     distinct experts, and their products padded to whole tiles.
//
// The constants are the same for every device and were set by hand while
// looking at the bundles below; they are no fit. The same shot always gives the
// same time, in all samples.
//
// # Errors
//
// |predicted/measured - 1| in percent, p50/p90, over the rows of the measured
// reference bundles; batches are 320 random ones measured apart, attention only.
// TestAccuracy holds the medians of dense, attention and batches below 30 and
// this table to its figures.
//
//	                                           dense    per_sequence  attention  moe      batches
//	H200 Llama-3.1-8B tp1                      11/35    35/45         7/21       -        13/24
//	RTXPRO6000 Qwen3-30B-A3B-Instruct-2507 tp1 8/42     5/48          4/23       6/24     -
//	RTXPRO6000 Qwen3-30B-A3B-Instruct-2507 tp2 11/34    2/16          5/22       -        -
//	RTXPRO6000 Llama-3.1-8B tp1                8/28     7/36          3/28       -        -
//	RTXPRO6000 Llama-3.1-8B tp2                7/28     4/7           5/26       -        -
//
// The H200's per_sequence is off for its sampler, which takes longer there than
// bytes and launches account for.
//
// A Driver is used by one goroutine at a time.
package roofline
