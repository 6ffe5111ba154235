//go:build race

package traceloader_test

const raceEnabled = true
