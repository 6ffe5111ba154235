//go:build !nvml || !cgo || !linux

package telemetry

import (
	"fmt"

	"github.com/layerprof/layerprof/profile"
)

// Reader reads nothing in this build.
type Reader struct{}

// Open reports that this build has no NVML.
func Open(int) (*Reader, error) {
	return nil, fmt.Errorf("%w: this program was built without it (it takes cgo and the build tag nvml)", ErrAbsent)
}

// Read reports the same.
func (*Reader) Read() (*profile.Telemetry, error) { return nil, ErrAbsent }

// Close does nothing.
func (*Reader) Close() error { return nil }
