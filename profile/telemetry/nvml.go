//go:build nvml && cgo && linux

package telemetry

import (
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/layerprof/layerprof/profile"
)

// library is what Reader needs of NVML.
type library interface {
	Init() nvml.Return
	Shutdown() nvml.Return
	DeviceGetHandleByIndex(index int) (nvml.Device, nvml.Return)
}

// Reader reads one device.
type Reader struct {
	library library
	device  nvml.Device
}

// Open finds the device with the given index. Its error wraps ErrAbsent.
func Open(index int) (*Reader, error) { return open(nvml.New(), index) }

func open(library library, index int) (*Reader, error) {
	if ret := library.Init(); ret != nvml.SUCCESS {
		return nil, fmt.Errorf("%w: %s", ErrAbsent, returnText(ret))
	}
	device, ret := library.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		library.Shutdown()
		return nil, fmt.Errorf("%w: device %d: %s", ErrAbsent, index, returnText(ret))
	}
	return &Reader{library, device}, nil
}

// returnText names a return without the library, which may be what is absent.
func returnText(ret nvml.Return) string {
	switch ret {
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return "the library is not installed"
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return "the driver is not loaded"
	case nvml.ERROR_NO_PERMISSION:
		return "no permission"
	}
	return fmt.Sprintf("NVML return %d", int(ret))
}

// Read reads the device's state. What a device does not support is left 0; an
// error means that nothing at all could be read.
func (r *Reader) Read() (*profile.Telemetry, error) {
	t := &profile.Telemetry{}
	read := 0
	ok := func(ret nvml.Return) bool {
		if ret == nvml.SUCCESS {
			read++
		}
		return ret == nvml.SUCCESS
	}
	if v, ret := r.device.GetClockInfo(nvml.CLOCK_SM); ok(ret) {
		t.SMClockMHz = int(v)
	}
	if v, ret := r.device.GetClockInfo(nvml.CLOCK_MEM); ok(ret) {
		t.MemoryClockMHz = int(v)
	}
	if v, ret := r.device.GetTemperature(nvml.TEMPERATURE_GPU); ok(ret) {
		t.TemperatureC = int(v)
	}
	if v, ret := r.device.GetPowerUsage(); ok(ret) {
		t.PowerMW = int(v)
	}
	if v, ret := r.device.GetCurrentClocksThrottleReasons(); ok(ret) {
		t.ThrottleReasons = throttleReasons(v)
	}
	if v, ret := r.device.GetMemoryInfo(); ok(ret) {
		t.MemoryUsedMiB = int(v.Used >> 20)
	}
	if v, ret := r.device.GetUtilizationRates(); ok(ret) {
		t.UtilizationShare = float64(v.Gpu) / 100
	}
	if read == 0 {
		return nil, errors.New("telemetry: the device answers none of NVML's queries")
	}
	return t, nil
}

// Close ends the use of the library.
func (r *Reader) Close() error {
	if ret := r.library.Shutdown(); ret != nvml.SUCCESS {
		return fmt.Errorf("telemetry: %s", returnText(ret))
	}
	return nil
}

// throttleReasons names the bits that say that the device is slowed down; idle
// is not among them.
func throttleReasons(bits uint64) []string {
	var names []string
	for _, reason := range []struct {
		bit  uint64
		name string
	}{
		{nvml.ClocksThrottleReasonApplicationsClocksSetting, "applications_clocks_setting"},
		{nvml.ClocksThrottleReasonSwPowerCap, "sw_power_cap"},
		{nvml.ClocksThrottleReasonHwSlowdown, "hw_slowdown"},
		{nvml.ClocksThrottleReasonSyncBoost, "sync_boost"},
		{nvml.ClocksThrottleReasonSwThermalSlowdown, "sw_thermal_slowdown"},
		{nvml.ClocksThrottleReasonHwThermalSlowdown, "hw_thermal_slowdown"},
		{nvml.ClocksThrottleReasonHwPowerBrakeSlowdown, "hw_power_brake_slowdown"},
		{nvml.ClocksThrottleReasonDisplayClockSetting, "display_clock_setting"},
	} {
		if bits&reason.bit != 0 {
			names = append(names, reason.name)
		}
	}
	return names
}
