// Package profile plans sweeps of synthetic batches, runs them through a
// Driver, keeps every measured shot in a journal and derives a bundle from it.
package profile
