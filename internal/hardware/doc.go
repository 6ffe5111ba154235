// Package hardware holds what is publicly known of accelerators, as data: one
// YAML file a device in specs/, with its sources. Nothing here is measured by
// us and nothing is fitted.
//
//	spec, ok := hardware.ByName("NVIDIA H200") // the name that a driver reports
//	spec, ok = hardware.ByKey("H200")          // --hardware and a bundle's folder
//	spec, err := hardware.ReadFile("mine.yaml") // --spec
//
// A name that no file lists is not found: a similar name may be another
// product (an H100 PCIe has 114 SMs, an H100 SXM 132), and a rule that would
// need the fact is better not used.
//
// # A specification file
//
//	hardware: H200             # required; the key, [A-Za-z0-9._-]
//	kind: gpu                  # required; gpu or accelerator
//	names: [NVIDIA H200]       # what the driver calls it; may be empty
//	compute_units: 132         # required; SMs of a GPU, otherwise what runs one tile at a time
//	peak_tflops: {bfloat16: 989.4}  # required; dense matrix products, by data type, 10^12/s
//	vector_tflops: 66.9        # float32 outside of the matrix units; 0: not known
//	memory_gb_per_s: 4800      # required; 10^9 bytes/s
//	memory_gb: 141             # required; 10^9 bytes
//	cache_mib: 50              # last cache before memory, 2^20 bytes; 0: none
//	launch_us: 2.0             # required; least time of a kernel on the device
//	power_w: 700               # 0: not known
//	attention: flash-attention-3  # flash-attention-2, flash-attention-3 or tiles (default)
//	sources: [...]             # where the figures stand
//
// Problems are *SpecError, positioned; all of a file are reported. Everything
// is safe for concurrent use.
package hardware
