// Package layerprof holds no code: see perfio, traceloader, profile and
// vllmdriver, and README.md.
package layerprof
