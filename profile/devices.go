package profile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"sync"
)

// A Device is one of several of a host that measure a plan together, each with
// a driver and a journal of its own.
type Device struct {
	Name string // as messages and folders name it: gpu2
	// Place is what the journal says of where it ran: the host and the device.
	// It tells the devices of one run apart.
	Place string
	// Open makes a driver on this device.
	Open func() (Driver, error)
	// ReadTelemetry reads this device's state once a block; nil: drivers alone
	// tell of it.
	ReadTelemetry func() (*Telemetry, error)
}

// DevicesOptions say what to measure and on which devices. The run's own Open,
// ReadTelemetry, Shard and Place are the devices'.
type DevicesOptions struct {
	RunOptions
	Devices []Device
	// Limit is the share by which a device's anchors may differ from the
	// others' before its rows are kept apart; 0: DefaultShardLimit.
	Limit float64
}

// DevicesReport is how a run on several devices ended.
type DevicesReport struct {
	Report
	Devices []DeviceReport
}

// DeviceReport is what became of one device.
type DeviceReport struct {
	Name     string
	Measured int
	Anchors  int
	// Ratio is how long its anchors took by those of the other devices, 0 where
	// there is nothing to compare.
	Ratio float64
	// Lost is why it ended before its part was measured; nil if it did not.
	Lost error
	// Apart is the folder of its own rows, "" where they are the bundle's.
	Apart string
}

// RunDevices measures one plan on several devices, each a shard of it, and
// makes one bundle of their journals. A device that is lost for good ends
// nothing: the others measure what it left. One whose anchors differ from the
// others' by more than the limit is set apart: its journal and its rows go to a
// folder beside the bundle's, and the others measure its part again.
//
// As with Run, a run that ends early is no error, and the report is there even
// with an error.
func RunDevices(ctx context.Context, opts DevicesOptions) (*DevicesReport, error) {
	report := &DevicesReport{Report: Report{Dir: opts.Dir}, Devices: make([]DeviceReport, len(opts.Devices))}
	setDefault(&opts.Limit, DefaultShardLimit)
	filled := opts.RunOptions
	filled.Open = func() (Driver, error) { return nil, errors.New("profile: a device has no Open") }
	filled, err := filled.filled()
	if err != nil {
		return report, err
	}
	opts.RunOptions = filled
	if err := checkDevices(opts.Devices); err != nil {
		return report, err
	}
	m := &multi{DevicesOptions: opts, report: report}
	m.RunOptions.Observe = m.observe(opts.RunOptions.Observe)
	if begin := opts.Begin; begin != nil {
		m.Begin = sync.OnceValue(begin)
	}
	active := make([]int, len(opts.Devices))
	for i, d := range opts.Devices {
		active[i] = i
		report.Devices[i].Name = d.Name
	}
	err = m.rounds(ctx, active)
	return report, err
}

func checkDevices(devices []Device) error {
	if len(devices) == 0 {
		return errors.New("devices: found none, expected at least one")
	}
	for i, d := range devices {
		if d.Name == "" || d.Place == "" || d.Open == nil {
			return fmt.Errorf("devices: found number %d without a name, a place or a driver", i)
		}
		for _, other := range devices[:i] {
			if other.Name == d.Name || other.Place == d.Place {
				return fmt.Errorf("devices: found %s twice, expected each once", d.Name)
			}
		}
	}
	return nil
}

// multi is one run on several devices.
type multi struct {
	DevicesOptions
	report *DevicesReport

	mu     sync.Mutex // guards counts: done and total of each device's part of a category in this round
	counts map[devicePart][2]int
}

type devicePart struct {
	device   string
	tp       int
	category Category
}

// rounds measures until nothing is left to do, or nobody to do it. Each round
// has fewer devices than the one before: those that were lost or set apart.
func (m *multi) rounds(ctx context.Context, active []int) error {
	for {
		left, fatal := m.round(ctx, active)
		if fatal != nil {
			return errors.Join(fatal, m.merge())
		}
		if m.report.Stopped || ctx.Err() != nil {
			return errors.Join(ctx.Err(), m.merge())
		}
		if len(left) == 0 {
			var errs []error
			for _, i := range active {
				errs = append(errs, fmt.Errorf("%s: %w", m.Devices[i].Name, m.report.Devices[i].Lost))
			}
			return errors.Join(append(errs, m.merge())...)
		}
		odd, err := m.setApart(active)
		if err != nil {
			return err
		}
		left = slices.DeleteFunc(left, func(i int) bool { return slices.Contains(odd, i) })
		if err := m.merge(); err != nil || len(left) == len(active) || m.report.Missing == len(m.report.Failed) {
			return err
		}
		// The failed shots get their chance on other devices.
		active, m.report.Failed = left, nil
	}
}

// round has each of the active devices measure its shard, and returns those
// that came through. A fatal error is one that is not a device's.
func (m *multi) round(ctx context.Context, active []int) (left []int, fatal error) {
	m.counts = make(map[devicePart][2]int)
	reports, errs := make([]*Report, len(active)), make([]error, len(active))
	// What is wrong for all ends the others' parts, too.
	stop, over := make(chan struct{}), make(chan struct{})
	ask := sync.OnceFunc(func() { close(stop) })
	defer close(over)
	go func() {
		select {
		case <-m.Stop:
			ask()
		case <-over:
		}
	}()
	var wg sync.WaitGroup
	for n, i := range active {
		wg.Go(func() {
			device, opts := m.Devices[i], m.RunOptions
			opts.Stop = stop
			opts.Open, opts.ReadTelemetry = device.Open, device.ReadTelemetry
			opts.Place, opts.Shard = device.Place, Shard{n, len(active)}
			opts.redivide = true // among those that are left
			observe := opts.Observe
			opts.Observe = func(e Event) {
				e.Device = device.Name
				observe(e)
			}
			if reports[n], errs[n] = Run(ctx, opts); errs[n] != nil && notTheDevice(errs[n]) {
				ask()
			}
		})
	}
	wg.Wait()
	m.report.Unbegun = m.report.Measured+m.report.Reused == 0
	for n, i := range active {
		r, one := reports[n], &m.report.Devices[i]
		one.Measured += r.Measured
		m.report.Measured += r.Measured
		m.report.Reused += r.Reused
		m.report.Infeasible += r.Infeasible
		m.report.Boots += r.Boots
		m.report.Redone += r.Redone
		m.report.Stopped = m.report.Stopped || r.Stopped
		m.report.Unbegun = m.report.Unbegun && r.Unbegun
		m.report.Failed = append(m.report.Failed, r.Failed...)
		switch {
		case errs[n] == nil:
			left = append(left, i)
		case ctx.Err() != nil:
		case notTheDevice(errs[n]):
			fatal = errors.Join(fatal, fmt.Errorf("%s: %w", m.Devices[i].Name, errs[n]))
		default:
			one.Lost = errs[n]
			m.warn("%s is lost: %v", m.Devices[i].Name, errs[n])
		}
	}
	return left, fatal
}

// notTheDevice tells errors that no other device would do without: of the
// folder, the plan, the environment.
func notTheDevice(err error) bool {
	var (
		environment *EnvironmentError
		plan        *PlanDifferenceError
		locked      *LockedError
		path        *fs.PathError
	)
	return errors.As(err, &environment) || errors.As(err, &plan) || errors.As(err, &locked) || errors.As(err, &path)
}

func (m *multi) warn(format string, args ...any) {
	m.RunOptions.Observe(Event{Kind: EventWarning, Message: fmt.Sprintf(format, args...)})
}

// merge makes the bundle of what is measured.
func (m *multi) merge() error {
	if !HasShards(m.Dir) {
		return nil // nothing was begun
	}
	merged, err := MergeShards(MergeOptions{Dir: m.Dir, Limit: -1, Partial: true, Observe: m.RunOptions.Observe, Now: m.Now})
	m.report.Missing = merged.Missing
	if err == nil {
		m.RunOptions.Observe(Event{Kind: EventWrote})
	}
	return err
}

// observe makes one progress of the devices' own: counts are sums.
func (m *multi) observe(tell func(Event)) func(Event) {
	return func(e Event) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if e.Category != "" && e.Kind != EventRedo {
			m.counts[devicePart{e.Device, e.TP, e.Category}] = [2]int{e.Done, e.Total}
			e.Done, e.Total = 0, 0
			for p, c := range m.counts {
				if p.tp == e.TP && p.category == e.Category {
					e.Done, e.Total = e.Done+c[0], e.Total+c[1]
				}
			}
		}
		tell(e)
	}
}

// apartDir is where a device's own rows go: a variant beside the bundle's.
func apartDir(dir, device string) string { return filepath.Clean(dir) + "-" + device }

// setApart compares the devices by their anchors, also one that was lost, moves
// the journals of those that differ from the others out of the bundle, and
// returns them.
func (m *multi) setApart(active []int) ([]int, error) {
	folder := filepath.Join(m.Dir, JournalDir)
	files, err := journalFiles(folder)
	if err != nil {
		return nil, err
	}
	journal, err := readJournal(files)
	if err != nil {
		return nil, err
	}
	// What earlier runs measured elsewhere is compared with nobody.
	deviceOf := func(file int) int {
		return slices.IndexFunc(active, func(i int) bool { return m.Devices[i].Place == journal.index.shard(file).place })
	}
	reports := make([]ShardReport, len(active))
	var anchors []*record
	var of []int
	for n, a := range journal.index.anchors {
		if i := deviceOf(journal.index.anchorFiles[n]); i >= 0 {
			anchors, of = append(anchors, a), append(of, i)
		}
	}
	shardRatios(reports, anchors, of, m.Limit)
	odd := oddOnes(reports, m.Limit)
	var apart []int
	for n, i := range active {
		one := &m.report.Devices[i]
		one.Anchors, one.Ratio = reports[n].Anchors, reports[n].Ratio
		if !odd[n] {
			continue
		}
		apart = append(apart, i)
		var own []string
		for f, file := range files {
			if deviceOf(f) == n {
				own = append(own, file)
			}
		}
		if one.Apart, err = m.moveApart(m.Devices[i], own); err != nil {
			return nil, err
		}
		m.warn("%s: its anchors took %.4f times as long as the others': its rows are kept apart, in %s", m.Devices[i].Name, one.Ratio, one.Apart)
	}
	return apart, nil
}

// oddOnes says which devices differ by more than the limit from the others,
// and turns their ratios into those to the middle of the devices that agree. Those are
// the largest group within the limit of one of its own. Where groups are equally
// large, as of two devices that differ, nobody can say by that alone which is
// right: then it is the fastest one's, since what is wrong with a device (heat,
// a power cap, another process on it) makes it slower.
func oddOnes(reports []ShardReport, limit float64) []bool {
	odd := make([]bool, len(reports))
	var agreeing []float64
	center := math.Inf(1)
	for _, r := range reports {
		if r.Ratio <= 0 {
			continue
		}
		var near []float64
		for _, other := range reports {
			if other.Ratio > 0 && !beyond(other.Ratio/r.Ratio, limit) {
				near = append(near, other.Ratio)
			}
		}
		if len(near) > len(agreeing) || len(near) == len(agreeing) && r.Ratio < center {
			agreeing, center = near, r.Ratio
		}
	}
	if len(agreeing) == 0 {
		return odd
	}
	middle := median(agreeing)
	for i := range reports {
		if reports[i].Ratio > 0 {
			reports[i].Ratio /= middle
			odd[i] = beyond(reports[i].Ratio, limit)
		}
	}
	return odd
}

func beyond(ratio, limit float64) bool { return ratio > 1+limit || ratio < 1/(1+limit) }

// moveApart moves a device's journals into a bundle of its own and makes that
// one's tables.
func (m *multi) moveApart(device Device, files []string) (string, error) {
	dir := apartDir(m.Dir, device.Name)
	if err := moveShards(filepath.Join(m.Dir, JournalDir), dir, files); err != nil {
		return "", err
	}
	_, err := MergeShards(MergeOptions{
		Dir: dir, Limit: -1, Partial: true, Variant: apartDir(m.Variant, device.Name), Observe: m.RunOptions.Observe, Now: m.Now,
	})
	return dir, err
}
