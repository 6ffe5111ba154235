package profile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/layerprof/layerprof/perfio"
)

// devicesOptions are of as many fake devices as there are factors on their
// times.
func devicesOptions(t *testing.T, dir string, factors ...float64) (DevicesOptions, []*fakeDevice) {
	t.Helper()
	opts := DevicesOptions{RunOptions: shardOptions(t, newFakeDevice(), dir, 0, 0)}
	var devices []*fakeDevice
	for i, factor := range factors {
		d := newFakeDevice()
		if factor != 1 {
			d.slow = func(int) float64 { return factor }
		}
		devices = append(devices, d)
		opts.Devices = append(opts.Devices, Device{Name: fmt.Sprintf("gpu%d", i), Place: fmt.Sprintf("host gpu%d", i), Open: d.open})
	}
	return opts, devices
}

// wholeRun is what one device alone measures.
func wholeRun(t *testing.T) (tables map[string]string, measured int) {
	t.Helper()
	dir := t.TempDir()
	report := mustRun(t, shardOptions(t, newFakeDevice(), dir, 0, 0))
	return bundleText(t, dir), report.Measured
}

func TestDevicesMeasureTheWhole(t *testing.T) {
	want, measured := wholeRun(t)
	dir := t.TempDir()
	opts, _ := devicesOptions(t, dir, 1, 1, 1)
	begun := 0
	opts.Begin = func() error { begun++; return nil }
	report, err := RunDevices(t.Context(), opts)
	if err != nil || report.Partial() || report.Measured != measured || begun != 1 {
		t.Fatalf("%+v, %v, begun %d times", report, err, begun)
	}
	sameTables(t, bundleText(t, dir), want)
	for _, d := range report.Devices {
		if d.Measured < measured/6 || d.Ratio != 1 || d.Lost != nil || d.Apart != "" || d.Anchors == 0 {
			t.Errorf("%+v", d)
		}
	}
	// Started again, on fewer devices: nothing is left to measure.
	opts, devices := devicesOptions(t, dir, 1, 1)
	if report, err := RunDevices(t.Context(), opts); err != nil || report.Measured != 0 || report.Reused == 0 || devices[0].opened != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	sameTables(t, bundleText(t, dir), want)
}

// dieAfter has a device lose its engine after some shots, and never boot again.
func dieAfter(opts *DevicesOptions, i int, d *fakeDevice, shots int64) {
	dead := func() bool { return d.fired.Load() > shots }
	d.lost = func(string, int) bool { return dead() }
	open := opts.Devices[i].Open
	opts.Devices[i].Open = func() (Driver, error) {
		if dead() {
			return nil, errors.New("GPU is lost. Reboot the system to recover this GPU")
		}
		return open()
	}
}

func TestLostDevice(t *testing.T) {
	want, _ := wholeRun(t)
	dir := t.TempDir()
	opts, devices := devicesOptions(t, dir, 1, 1, 1)
	dieAfter(&opts, 1, devices[1], 30)
	report, err := RunDevices(t.Context(), opts)
	if err != nil || report.Partial() {
		t.Fatalf("%+v, %v", report, err)
	}
	sameTables(t, bundleText(t, dir), want)
	if lost := report.Devices[1].Lost; lost == nil || !strings.Contains(lost.Error(), "GPU is lost") || report.Devices[0].Lost != nil {
		t.Errorf("%+v", report.Devices)
	}
}

// A device that was slow before it was lost leaves no rows in the bundle.
func TestSlowDeviceLost(t *testing.T) {
	want, _ := wholeRun(t)
	dir := filepath.Join(t.TempDir(), "bf16")
	opts, devices := devicesOptions(t, dir, 1, 1.2, 1)
	dieAfter(&opts, 1, devices[1], 60)
	report, err := RunDevices(t.Context(), opts)
	if err != nil || report.Partial() || report.Devices[1].Lost == nil || report.Devices[1].Apart == "" {
		t.Fatalf("%+v, %v", report, err)
	}
	sameTables(t, bundleText(t, dir), want)
}

// With every device gone the run ends with what was measured, to go on later.
func TestAllDevicesLost(t *testing.T) {
	want, _ := wholeRun(t)
	dir := t.TempDir()
	opts, devices := devicesOptions(t, dir, 1, 1)
	dieAfter(&opts, 0, devices[0], 30)
	dieAfter(&opts, 1, devices[1], 60)
	report, err := RunDevices(t.Context(), opts)
	if err == nil || !strings.Contains(err.Error(), "gpu0") || !strings.Contains(err.Error(), "gpu1") || !report.Partial() || report.Measured < 60 {
		t.Fatalf("%+v, %v", report, err)
	}
	if _, err := perfio.OpenBundle(dir, perfio.Only(perfio.DenseFile)); err != nil {
		t.Error(err)
	}
	opts, _ = devicesOptions(t, dir, 1)
	if report, err := RunDevices(t.Context(), opts); err != nil || report.Partial() || report.Reused == 0 {
		t.Errorf("%+v, %v", report, err)
	}
	sameTables(t, bundleText(t, dir), want)
}

func TestDeviceSetApart(t *testing.T) {
	want, _ := wholeRun(t)
	for _, test := range []struct {
		factors []float64
		odd     int
		ratio   float64
	}{
		{[]float64{1, 1.2, 1}, 1, 1.2},
		{[]float64{1, 1, 1 / 1.2}, 2, 1 / 1.2},
		{[]float64{1.2, 1}, 0, 1.2}, // of two, the slower one
	} {
		t.Run(fmt.Sprint(test.factors), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "bf16")
			opts, _ := devicesOptions(t, dir, test.factors...)
			var warned atomic.Bool
			opts.Observe = func(e Event) {
				if e.Kind == EventWarning && strings.Contains(e.Message, "kept apart") && strings.Contains(e.Message, opts.Devices[test.odd].Name) {
					warned.Store(true)
				}
			}
			report, err := RunDevices(t.Context(), opts)
			if err != nil || report.Partial() || !warned.Load() {
				t.Fatalf("%+v, %v", report, err)
			}
			sameTables(t, bundleText(t, dir), want)
			for i, d := range report.Devices {
				if odd := i == test.odd; odd != (d.Apart != "") || odd && math.Abs(d.Ratio-test.ratio) > 1e-9 {
					t.Errorf("%+v", d)
				}
			}
			own, err := perfio.OpenBundle(report.Devices[test.odd].Apart)
			if err != nil {
				t.Fatal(err)
			}
			if own.Meta.Variant() != "bf16-"+opts.Devices[test.odd].Name || len(own.TPs[0].Dense) == 0 {
				t.Errorf("variant %q with %d dense rows", own.Meta.Variant(), len(own.TPs[0].Dense))
			}
			// Within a limit that is wide enough it is corrected in its place.
			opts, _ = devicesOptions(t, filepath.Join(t.TempDir(), "bf16"), test.factors...)
			opts.Limit = 0.3
			report, err = RunDevices(t.Context(), opts)
			if err != nil || report.Partial() || report.Devices[test.odd].Apart != "" {
				t.Errorf("%+v, %v", report, err)
			}
		})
	}
}

func TestDevicesStop(t *testing.T) {
	want, _ := wholeRun(t)
	dir := t.TempDir()
	opts, devices := devicesOptions(t, dir, 1, 1)
	stop := make(chan struct{})
	opts.Stop = stop
	var once atomic.Bool
	devices[0].slow = func(fired int) float64 {
		if fired > 40 && once.CompareAndSwap(false, true) {
			close(stop)
		}
		return 1
	}
	report, err := RunDevices(t.Context(), opts)
	if err != nil || !report.Stopped || !report.Partial() || report.Missing == 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	opts, _ = devicesOptions(t, dir, 1, 1)
	if report, err := RunDevices(t.Context(), opts); err != nil || report.Partial() {
		t.Fatalf("%+v, %v", report, err)
	}
	sameTables(t, bundleText(t, dir), want)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	opts, _ = devicesOptions(t, t.TempDir(), 1, 1)
	if _, err := RunDevices(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestDevicesOfTwoKinds(t *testing.T) {
	dir := t.TempDir()
	opts, devices := devicesOptions(t, dir, 1, 1)
	devices[1].fingerprint = map[string]string{"driver": "fake", "gpu": "FAKE-2"}
	_, err := RunDevices(t.Context(), opts)
	var environment *EnvironmentError
	if !errors.As(err, &environment) || !strings.Contains(err.Error(), "FAKE-2") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "meta.yaml")); err == nil {
		t.Error("a bundle of two kinds of devices is written")
	}
}

func TestDevicesOptions(t *testing.T) {
	opts, _ := devicesOptions(t, t.TempDir(), 1, 1)
	opts.Devices[1].Name = "gpu0"
	if _, err := RunDevices(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "gpu0 twice") {
		t.Errorf("%v", err)
	}
	opts.Devices = nil
	if _, err := RunDevices(t.Context(), opts); err == nil {
		t.Error("no devices are taken")
	}
}
