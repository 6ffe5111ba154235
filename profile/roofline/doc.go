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
// A Driver is used by one goroutine at a time.
package roofline
