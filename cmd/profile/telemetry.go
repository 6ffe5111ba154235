package main

import (
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/profile/telemetry"
)

// readTelemetry opens the device's telemetry; where there is none it says so
// once and gives nil.
func readTelemetry(show progress) func() (*profile.Telemetry, error) {
	reader, err := telemetry.Open(0)
	if err != nil {
		show.note("no telemetry of the device: " + err.Error())
		return nil
	}
	return reader.Read
}
