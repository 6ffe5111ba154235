package main

import (
	"fmt"
	"strings"

	"github.com/layerprof/layerprof/internal/hardware"
	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/profile/replay"
	"github.com/layerprof/layerprof/profile/roofline"
)

// openDriver makes the driver that --driver names; it boots nothing.
func openDriver(f *sweepFlags) (profile.Driver, error) {
	name, rest, _ := strings.Cut(f.Driver, ":")
	switch name {
	case "roofline":
		return openRoofline(f)
	case "replay":
		return openReplay(f, rest)
	case "vllm", "exec":
		return openWorker(f)
	}
	return nil, usageErrorf("driver: found %q, expected roofline, replay:BUNDLE[,key=value...], vllm or exec:CMD", f.Driver)
}

// openReplay gives drivers that share one source: what it injects goes by how
// often it was asked.
func openReplay(f *sweepFlags, text string) (profile.Driver, error) {
	if f.replaySource == nil {
		options, err := replay.Parse(text)
		if err != nil {
			return nil, usageErrorf("driver: %w", err)
		}
		if f.replaySource, err = replay.Open(options); err != nil {
			return nil, fmt.Errorf("driver: %w", err)
		}
	}
	return f.replaySource.NewDriver(), nil
}

func openRoofline(f *sweepFlags) (profile.Driver, error) {
	if f.Spec != "" {
		spec, err := hardware.ReadFile(f.Spec)
		if err != nil {
			return nil, err
		}
		return roofline.New(roofline.Options{Spec: spec})
	}
	spec, ok := hardware.ByKey(f.Hardware)
	if !ok {
		return nil, usageErrorf("hardware: found %q, expected %s, or a specification of your own by --spec FILE",
			f.Hardware, strings.Join(hardware.Keys(), ", "))
	}
	driver, err := roofline.New(roofline.Options{Spec: spec})
	if err != nil {
		return nil, fmt.Errorf("roofline: %w", err)
	}
	return driver, nil
}
