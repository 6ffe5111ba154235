// Package traceloader answers how long a layer takes for a batch, from a
// measured bundle, in integer nanoseconds.
package traceloader
