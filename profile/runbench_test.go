//go:build unix

package profile

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// nullDriver answers at once: what a run costs with it is the engine's own.
type nullDriver struct{ fakeDriver }

func (d *nullDriver) Measure(_ context.Context, shots []Shot, options MeasureOptions, yield func(Result) error) error {
	samples := make([]float64, options.Iterations)
	for i := range samples {
		samples[i] = 348.577
	}
	layers := make([]LayerResult, len(options.Layers))
	for i, name := range options.Layers {
		layers[i] = LayerResult{Layer: name, SamplesUS: samples, Calls: 1, Launches: 1}
	}
	for i := range shots {
		if err := yield(Result{Index: i, Status: OK, Layers: layers}); err != nil {
			return err
		}
	}
	return nil
}

// noSync is a journal file whose syncs cost nothing.
type noSync struct{ journalFile }

func (noSync) Sync() error { return nil }

// BenchmarkRun is a full sweep, 8,643 attention shots and 13,009 skew cases less
// repeats: plan, journal without fsync, tables. us/shot is the engine's own
// cost.
func BenchmarkRun(b *testing.B) {
	d := newFakeDevice()
	d.origin, d.batch = Synthetic, 256
	d.limits = Limits{MaxNumBatchedTokens: 2048, MaxNumSeqs: 256, BlockSize: 16}
	plan, err := PlanOptions{ShareRepeats: true}.Filled()
	if err != nil {
		b.Fatal(err)
	}
	root := b.TempDir()
	shots := 0
	var began time.Time
	var cpu time.Duration
	for n := 0; b.Loop(); n++ {
		dir := filepath.Join(root, "bundle")
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
		if n == 0 {
			began, cpu = time.Now(), cpuTime(b)
		}
		opts := benchOptions(d, dir)
		opts.PlanOptions = plan
		opts.Plan = func(tp int, e *Engine) (TPPlan, error) { return NewTPPlan(tp, e.Limits, testArchitecture, plan) }
		report, err := runWithJournal(b.Context(), opts, func(j *Journal) { j.file = noSync{j.file} })
		if err != nil || report.Partial() {
			b.Fatal(report, err)
		}
		shots += report.Measured
	}
	b.ReportMetric(float64(time.Since(began).Microseconds())/float64(shots), "us/shot")
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(shots), "cpu-us/shot")
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	b.ReportMetric(float64(memory.Sys)/(1<<20), "MiB")
}

// cpuTime is what this process has used of its processors: unlike wall time it
// does not go by what else runs.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func benchOptions(d *fakeDevice, dir string) RunOptions {
	opts := baseOptions(d, dir)
	opts.Open = func() (Driver, error) { return &nullDriver{fakeDriver{device: d}}, nil }
	return opts
}
