package profile

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/layerprof/layerprof/perfio"
)

// fakeDevice is what fake drivers share: the device outlives its drivers. Times
// are a function of the shape and the layer, so that any two runs agree.
type fakeDevice struct {
	fingerprint map[string]string
	origin      Origin
	batch       int
	limits      Limits
	noShare     bool

	// The device's faults, by shape; nil: none.
	status func(shape string, attempt int) Status
	lost   func(shape string, attempt int) bool
	hang   func(shape string) bool
	// slow is a factor on all times, by the number of shots fired so far.
	slow func(fired int) float64
	// sample changes one sample.
	sample func(us float64, shot, n int) float64
	// nameless: a lost engine does not say to which shot.
	nameless bool

	fired    atomic.Int64
	attempts map[string]int
	boots    int
	opened   int
	closed   int
}

func newFakeDevice() *fakeDevice {
	return &fakeDevice{
		fingerprint: map[string]string{"driver": "fake", "gpu": "FAKE-1"},
		origin:      Measured, batch: 7,
		limits:   Limits{MaxNumBatchedTokens: 64, MaxNumSeqs: 8, MaxModelLen: 4096, BlockSize: 16},
		attempts: make(map[string]int),
	}
}

func (d *fakeDevice) open() (Driver, error) {
	d.opened++
	return &fakeDriver{device: d}, nil
}

// fakeDriver is one driver on the device. A call out of turn is an error.
type fakeDriver struct {
	device *fakeDevice
	spec   EngineSpec
	booted bool
	closed bool
}

func (d *fakeDriver) Describe(context.Context) (Description, error) {
	return Description{Name: "fake", Version: "1", Origin: d.device.origin, ShareRepeats: !d.device.noShare, BatchShots: d.device.batch}, nil
}

func (d *fakeDriver) Boot(_ context.Context, spec EngineSpec) (*Engine, error) {
	if d.closed {
		return nil, errors.New("fake: Boot after Close")
	}
	d.booted, d.spec = true, spec
	d.device.boots++
	return &Engine{
		Limits: d.device.limits, Fingerprint: d.device.fingerprint, Origin: d.device.origin, GPU: "FAKE-1",
		Provenance: map[string]any{"skew_statistic": "mean"},
	}, nil
}

// fakeTime is the true time of a layer in a shot.
func fakeTime(shape, layer string) float64 {
	h := fnv.New64a()
	fmt.Fprint(h, shape, layer)
	return 5 + float64(h.Sum64()%100000)/100
}

func (d *fakeDriver) Measure(ctx context.Context, shots []Shot, options MeasureOptions, yield func(Result) error) error {
	if !d.booted || d.closed {
		return errors.New("fake: Measure without an engine")
	}
	for i := range shots {
		shape := shots[i].Shape()
		d.device.attempts[shape]++
		attempt := d.device.attempts[shape]
		fired := int(d.device.fired.Add(1))
		if d.device.hang != nil && d.device.hang(shape) {
			<-ctx.Done()
			d.booted = false
			return ctx.Err()
		}
		if d.device.lost != nil && d.device.lost(shape, attempt) {
			d.booted = false
			at := i
			if d.device.nameless {
				at = -1
			}
			return &EngineLostError{Index: at, LastWords: "the last words about " + shape, Err: errors.New("signal: killed")}
		}
		res := Result{Index: i, Status: OK}
		if d.device.status != nil {
			if res.Status = d.device.status(shape, attempt); res.Status != OK {
				res.Message = "no luck with " + shape
				if err := yield(res); err != nil {
					d.booted = false
					return err
				}
				continue
			}
		}
		factor := 1.0
		if d.device.slow != nil {
			factor = d.device.slow(fired)
		}
		for _, layer := range options.Layers {
			l := LayerResult{Layer: layer, Calls: 1, Launches: 1}
			for n := range options.Iterations {
				us := fakeTime(shape, layer) * factor
				if d.device.sample != nil {
					us = d.device.sample(us, fired, n)
				}
				l.SamplesUS = append(l.SamplesUS, us)
			}
			res.Layers = append(res.Layers, l)
		}
		if err := yield(res); err != nil {
			d.booted = false
			return err
		}
	}
	return nil
}

func (d *fakeDriver) Close() error {
	if !d.closed {
		d.closed = true
		d.device.closed++
	}
	return nil
}

var testArchitecture = &perfio.Architecture{
	ModelType: "llama",
	Catalog: []perfio.CatalogEntry{
		{Layer: "layernorm", Category: "dense", TPStable: true},
		{Layer: "qkv_proj", Category: "dense"},
		{Layer: "attention", Category: "attention"},
		{Layer: "lm_head", Category: "per_sequence"},
		{Layer: "sampler", Category: "per_sequence", TPStable: true},
	},
}

// testOptions run the device's small plan into a folder.
func testOptions(t *testing.T, d *fakeDevice, dir string) RunOptions {
	t.Helper()
	plan, err := PlanOptions{MaxKV: 256, ShareRepeats: !d.noShare, SkewKVSFactor: 2}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	opts := baseOptions(d, dir)
	opts.PlanOptions = plan
	opts.Plan = func(tp int, e *Engine) (TPPlan, error) { return NewTPPlan(tp, e.Limits, testArchitecture, plan) }
	opts.Observe = func(e Event) {
		if e.Kind != EventShot && e.Kind != EventRetry {
			t.Logf("%v %s tp%d %s %s %d/%d %s", e.Elapsed, e.Kind, e.TP, e.Category, e.Shape, e.Done, e.Total, e.Message)
		}
	}
	return opts
}

func baseOptions(d *fakeDevice, dir string) RunOptions {
	return RunOptions{
		Dir: dir, Hardware: "FAKE", Variant: "bf16", Open: d.open,
		Spec: EngineSpec{
			Model: &perfio.ModelConfig{
				ID: "test/model", ModelType: "llama", HiddenSize: 64, IntermediateSize: 128, NumHiddenLayers: 2,
				NumAttentionHeads: 4, NumKeyValueHeads: 2, VocabSize: 1024,
			},
			Architecture: testArchitecture, DType: "bfloat16",
		},
		Deadline: time.Second,
	}
}
