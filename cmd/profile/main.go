// Command profile plans, measures and fits layerwise latency profiles.
//
//	profile plan    what would be measured: counts, shots, time
//	profile run     measure, and write a bundle
//	profile resume  go on with a bundle that is partial
//	profile fit     fit the skew table of a bundle again
//	profile serve-check hold a bundle against the engine serving requests
//	profile probe   what would run: driver, engine, limits, catalog
//	profile arch    show, check and draft architecture files
//	profile drivers list what can measure
//	profile campaign plan and emit the jobs of many bundles, for a scheduler
//
// Results go to standard output, everything else to standard error. The exit
// status is 0 for success, 1 for a failure, 2 for wrong usage, 3 for a run that
// is partial and can be resumed, 4 for a run that would mix measurements of
// different environments, and 5 where serve-check finds a larger error than allowed.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
