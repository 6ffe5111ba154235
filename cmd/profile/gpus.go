package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/profile"
	"github.com/layerprof/layerprof/profile/telemetry"
)

// cpuDevice begins the name of a device that is some of the host's cores:
// cpu:0-3. vLLM's CPU engine is pinned to them.
const cpuDevice = "cpu:"

// deviceName is what a variable as CUDA_VISIBLE_DEVICES lists; -1 there ends
// the list.
var deviceName = regexp.MustCompile(`^[A-Za-z0-9]\S*$`)

// gpuGroups reads --gpus: the devices of each worker. A worker has one, or as
// many as the tensor-parallel degree where that is real.
func (f *runFlags) gpuGroups(ctx context.Context) ([][]string, error) {
	if !(f.DeviceLimit > 0) {
		return nil, usageErrorf("max-gpu-ratio: found %g, expected a share above 0", f.DeviceLimit)
	}
	names := strings.Split(f.GPUs, ",")
	if f.GPUs == "all" {
		var err error
		if names, err = allGPUs(ctx); err != nil {
			return nil, err
		}
	}
	for i, name := range names {
		switch {
		case strings.TrimSpace(name) != name || name == "" || name == cpuDevice:
			return nil, usageErrorf("gpus: found %q, expected all, or a list as 0,2,5 or cpu:0,cpu:1", f.GPUs)
		case !deviceName.MatchString(strings.TrimPrefix(name, cpuDevice)):
			return nil, usageErrorf("gpus: found the device %q, expected a number, a UUID or cpu:CORES", name)
		case slices.Contains(names[:i], name):
			return nil, usageErrorf("gpus: found %s twice", name)
		case isCPU(name) != isCPU(names[0]):
			return nil, usageErrorf("gpus: found %s and %s, expected devices of one kind", names[0], name)
		}
	}
	size := 1
	if profile.TPMode(f.TPMode) == profile.RealTP {
		size = slices.Max(f.TPs)
		if isCPU(names[0]) && slices.Min(f.TPs) != size {
			return nil, usageErrorf("gpus: found the degrees %v on CPU devices, expected one: its engine takes as many lists of cores as it has ranks", f.TPs)
		}
	}
	if len(names)%size != 0 {
		return nil, usageErrorf("gpus: found %d devices, expected a multiple of %d, the devices of one engine (--tp-mode real)", len(names), size)
	}
	return slices.Collect(slices.Chunk(names, size)), nil
}

func isCPU(device string) bool { return strings.HasPrefix(device, cpuDevice) }

// allGPUs lists what nvidia-smi shows, or of that what CUDA_VISIBLE_DEVICES
// leaves of it.
func allGPUs(ctx context.Context) ([]string, error) {
	if visible, ok := os.LookupEnv("CUDA_VISIBLE_DEVICES"); ok && visible != "" {
		return strings.Split(visible, ","), nil
	}
	out, err := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu=index", "--format=csv,noheader").Output()
	if err != nil {
		return nil, fmt.Errorf("gpus: all: nvidia-smi: %w", err)
	}
	names := strings.Fields(string(out))
	if len(names) == 0 {
		return nil, errors.New("gpus: all: nvidia-smi lists no GPU")
	}
	return names, nil
}

// deviceEnv pins a worker to its devices.
func (f *runFlags) deviceEnv(group []string) map[string]string {
	if isCPU(group[0]) {
		var cores []string
		for _, name := range group {
			cores = append(cores, strings.TrimPrefix(name, cpuDevice))
		}
		return map[string]string{"VLLM_CPU_OMP_THREADS_BIND": strings.Join(cores, "|")}
	}
	env := map[string]string{f.DeviceEnv: strings.Join(group, ",")}
	if f.DeviceEnv == "CUDA_VISIBLE_DEVICES" {
		env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID" // so that the numbers are nvidia-smi's
	}
	return env
}

// devices are the workers of --gpus. What the replay driver answers from is
// opened by now, once for all of them.
func (f *runFlags) devices(groups [][]string, show progress) []profile.Device {
	var out []profile.Device
	host := hostName()
	for _, group := range groups {
		text := strings.Join(group, "+")
		flags := *f.sweepFlags
		flags.Env = maps.Clone(f.Env)
		if flags.Env == nil {
			flags.Env = make(map[string]string)
		}
		maps.Copy(flags.Env, f.deviceEnv(group))
		name := "gpu" + text
		if isCPU(group[0]) {
			name = strings.ReplaceAll(text, cpuDevice, "cpu")
		}
		if flags.EngineLog != "" && flags.EngineLog != "-" {
			flags.EngineLog += "." + name
		}
		device := profile.Device{
			Name: name, Place: strings.TrimSpace(host + " " + name),
			Open: func() (profile.Driver, error) { return openDriver(&flags) },
		}
		if f.Telemetry && len(group) == 1 {
			device.ReadTelemetry = readGPUTelemetry(group[0], name, show)
		}
		out = append(out, device)
	}
	return out
}

// readGPUTelemetry reads one GPU of several; nil, with a note, where it cannot.
func readGPUTelemetry(gpu, name string, show progress) func() (*profile.Telemetry, error) {
	index := 0
	if n, err := fmt.Sscanf(gpu, "%d", &index); n != 1 || err != nil || fmt.Sprint(index) != gpu {
		return nil // cores, or a GPU that is named by its UUID
	}
	reader, err := telemetry.Open(index)
	if err != nil {
		show.note(fmt.Sprintf("%s: no telemetry of the device: %v", name, err))
		return nil
	}
	return reader.Read
}

// measureDevices is measure on the devices of --gpus.
func (a *app) measureDevices(ctx context.Context, f *runFlags, options profile.RunOptions, groups [][]string, show progress, done func()) error {
	report, err := profile.RunDevices(ctx, profile.DevicesOptions{RunOptions: options, Devices: f.devices(groups, show), Limit: f.DeviceLimit})
	done()
	for _, d := range report.Devices {
		text := fmt.Sprintf("%s: %d shots measured", d.Name, d.Measured)
		if d.Ratio > 0 {
			text += fmt.Sprintf(", its anchors took %.4f times as long as the others'", d.Ratio)
		}
		if d.Apart != "" {
			text += ": its rows are kept apart, in " + d.Apart
		}
		if d.Lost != nil {
			text += "; it was lost: " + firstLine(d.Lost.Error())
		}
		fmt.Fprintln(a.stderr, text)
	}
	return a.conclude(&report.Report, err)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
