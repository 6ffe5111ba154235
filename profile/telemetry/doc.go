// Package telemetry reads a GPU's clocks, temperature, power, memory and
// throttle reasons through NVML. It takes cgo and the build tag nvml: NVML's
// bindings print a page of the C compiler's warnings, which nobody should read
// who has no use for them. Without, or where the library or a device is absent,
// Open says so, which is no reason not to measure.
//
// A Reader is used by one goroutine at a time.
package telemetry

import "errors"

// ErrAbsent is Open's error where nothing can be read; errors.Is finds it.
var ErrAbsent = errors.New("NVML is not available")
