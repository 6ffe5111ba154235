package main

import "runtime/debug"

// version is the module's version as the build knows it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return "layerprof " + info.Main.Version
	}
	return "layerprof devel"
}
