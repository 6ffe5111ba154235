package profile

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// undisturbed is what a run without any fault writes.
func undisturbed(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	mustRun(t, testOptions(t, newFakeDevice(), dir))
	return tables(t, dir)
}

// Every third shot fails at first; all is measured in the end.
func TestFailingShotsAreTriedAgain(t *testing.T) {
	for _, test := range []struct {
		name string
		set  func(d *fakeDevice, hit func(shape string) bool)
	}{
		{"status", func(d *fakeDevice, hit func(string) bool) {
			d.status = func(shape string, attempt int) Status {
				if attempt == 1 && hit(shape) {
					return OutOfMemory
				}
				return OK
			}
		}},
		{"engine lost", func(d *fakeDevice, hit func(string) bool) {
			d.lost = func(shape string, attempt int) bool { return attempt == 1 && hit(shape) }
		}},
		{"engine lost, no culprit named", func(d *fakeDevice, hit func(string) bool) {
			d.lost = func(shape string, attempt int) bool { return attempt == 1 && hit(shape) }
			d.nameless = true
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, dir := newFakeDevice(), t.TempDir()
			test.set(d, func(shape string) bool { return strings.HasSuffix(shape, "@32") })
			opts := testOptions(t, d, dir)
			opts.AnchorEvery = -1
			report := mustRun(t, opts)
			sameTables(t, tables(t, dir), undisturbed(t))
			if d.opened < 2 || d.opened != d.closed || d.opened != report.Boots {
				t.Errorf("%d drivers opened, %d closed, %d boots", d.opened, d.closed, report.Boots)
			}
		})
	}
}

// A shot that never works is set aside with the driver's last words, the rest
// is measured, and a later run tries it again.
func TestHopelessShotIsSetAside(t *testing.T) {
	for _, test := range []struct {
		name   string
		set    func(d *fakeDevice, bad string)
		status Status
		words  string
	}{
		{"status", func(d *fakeDevice, bad string) {
			d.status = func(shape string, _ int) Status {
				if shape == bad {
					return Failed
				}
				return OK
			}
		}, Failed, "no luck with"},
		{"engine lost", func(d *fakeDevice, bad string) {
			d.lost = func(shape string, _ int) bool { return shape == bad }
		}, Failed, "the last words about"},
		{"engine lost, no culprit named", func(d *fakeDevice, bad string) {
			d.lost = func(shape string, _ int) bool { return shape == bad }
			d.nameless = true
		}, Failed, "the last words about"},
		{"hang", func(d *fakeDevice, bad string) {
			d.hang = func(shape string) bool { return shape == bad }
		}, TimedOut, "no answer within the deadline"},
	} {
		t.Run(test.name, func(t *testing.T) {
			const bad = "8x1@64"
			d, dir := newFakeDevice(), t.TempDir()
			d.batch = 3
			test.set(d, bad)
			opts := testOptions(t, d, dir)
			opts.Deadline = 20 * time.Millisecond
			report, err := Run(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			if !report.Partial() || len(report.Failed) != 1 || report.Missing != 1 {
				t.Fatalf("report %+v", report)
			}
			f := report.Failed[0]
			if f.Shape != bad || f.Status != test.status || !strings.Contains(f.Message, test.words) {
				t.Errorf("failed: %+v, expected %s with %q", f, test.status, test.words)
			}
			for name, text := range tables(t, dir) {
				if name == "tp1/attention.csv" && strings.Contains(text, "\n0,0,8,64,") {
					t.Errorf("%s has a row for the shot that failed", name)
				}
			}
			d.status, d.lost, d.hang = nil, nil, nil
			fired := d.fired.Load()
			report = mustRun(t, testOptions(t, d, dir))
			if report.Measured != 1 || d.fired.Load()-fired > 3 { // with two anchors
				t.Errorf("the second run fired %d shots: %+v", d.fired.Load()-fired, report)
			}
			sameTables(t, tables(t, dir), undisturbed(t))
		})
	}
}

// What a driver calls good and is not counts as failed.
func TestBadTimesAreFailures(t *testing.T) {
	for _, bad := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		d, dir := newFakeDevice(), t.TempDir()
		d.sample = func(us float64, shot, n int) float64 {
			if shot == 5 && n == 1 {
				return bad
			}
			return us
		}
		mustRun(t, testOptions(t, d, dir)) // a second attempt is well
		sameTables(t, tables(t, dir), undisturbed(t))
	}
}

func TestRunGivesUpOnADeadDriver(t *testing.T) {
	d := newFakeDevice()
	d.status = func(string, int) Status { return Failed }
	report, err := Run(t.Context(), testOptions(t, d, t.TempDir()))
	if err == nil || !strings.Contains(err.Error(), "failed") {
		t.Errorf("%+v, %v", report, err)
	}
	if d.fired.Load() > 200 {
		t.Errorf("%d shots were fired at it", d.fired.Load())
	}
}

func TestInfeasibleShotsAreLeftOut(t *testing.T) {
	d, dir := newFakeDevice(), t.TempDir()
	d.status = func(shape string, _ int) Status {
		if shape == "8x1@64" {
			return Infeasible
		}
		return OK
	}
	report := mustRun(t, testOptions(t, d, dir))
	if report.Infeasible != 1 {
		t.Errorf("%+v", report)
	}
	fired := d.fired.Load()
	mustRun(t, testOptions(t, d, dir))
	if d.fired.Load() != fired {
		t.Error("a second run asked for it again")
	}
}

func TestStopFinishesTheShotInFlight(t *testing.T) {
	d, dir := newFakeDevice(), t.TempDir()
	stop := make(chan struct{})
	opts := testOptions(t, d, dir)
	opts.Stop, opts.AnchorEvery = stop, -1
	d.slow = func(fired int) float64 {
		if fired == 100 {
			close(stop)
		}
		return 1
	}
	report, err := Run(t.Context(), opts)
	if err != nil || !report.Stopped || !report.Partial() {
		t.Fatalf("%+v, %v", report, err)
	}
	if report.Measured != 100 || d.fired.Load() != 100 {
		t.Errorf("%d shots fired, %d measured, expected 100", d.fired.Load(), report.Measured)
	}
	if _, err := os.Stat(filepath.Join(dir, "meta.yaml")); err != nil {
		t.Errorf("nothing was written: %v", err)
	}
	d.slow = nil
	report = mustRun(t, testOptions(t, d, dir))
	if report.Reused != 100 {
		t.Errorf("%+v", report)
	}
	sameTables(t, tables(t, dir), undisturbed(t))
}

// A cancelled run leaves at once, even where the driver hangs.
func TestCancelLeavesAtOnce(t *testing.T) {
	d, dir := newFakeDevice(), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	d.hang = func(shape string) bool {
		if d.fired.Load() > 50 {
			cancel()
			return true
		}
		return false
	}
	opts := testOptions(t, d, dir)
	opts.Deadline = time.Hour
	if _, err := Run(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
	d.hang = nil
	mustRun(t, testOptions(t, d, dir))
	sameTables(t, tables(t, dir), undisturbed(t))
}

func TestEnvironmentThatChanged(t *testing.T) {
	half := func(t *testing.T) (*fakeDevice, string) {
		d, dir := newFakeDevice(), t.TempDir()
		opts := testOptions(t, d, dir)
		stop := make(chan struct{})
		opts.Stop = stop
		d.slow = func(fired int) float64 {
			if fired == 150 {
				close(stop)
			}
			return 1
		}
		if _, err := Run(t.Context(), opts); err != nil {
			t.Fatal(err)
		}
		d.slow = nil
		d.fingerprint = map[string]string{"driver": "fake", "gpu": "FAKE-2", "engine": "2"}
		return d, dir
	}
	t.Run("stop", func(t *testing.T) {
		d, dir := half(t)
		before := tables(t, dir)
		_, err := Run(t.Context(), testOptions(t, d, dir))
		var changed *EnvironmentError
		if !errors.As(err, &changed) {
			t.Fatalf("run: %v", err)
		}
		want := []Difference{{"engine", "", "2"}, {"gpu", "FAKE-1", "FAKE-2"}}
		if len(changed.Differences) != 2 || changed.Differences[0] != want[0] || changed.Differences[1] != want[1] {
			t.Errorf("differences %+v, expected %+v", changed.Differences, want)
		}
		if !strings.Contains(err.Error(), `gpu: was "FAKE-1", is "FAKE-2"`) {
			t.Errorf("message %q", err)
		}
		sameTables(t, tables(t, dir), before)
		// The first environment is still welcome.
		d.fingerprint = newFakeDevice().fingerprint
		mustRun(t, testOptions(t, d, dir))
		sameTables(t, tables(t, dir), undisturbed(t))
	})
	t.Run("keep", func(t *testing.T) {
		d, dir := half(t)
		opts := testOptions(t, d, dir)
		opts.OnChange = KeepOnChange
		report := mustRun(t, opts)
		if report.Reused < 100 {
			t.Errorf("%+v", report)
		}
		// Once accepted, it is no question any more.
		mustRun(t, testOptions(t, d, dir))
		sameTables(t, tables(t, dir), undisturbed(t))
	})
	t.Run("remeasure", func(t *testing.T) {
		d, dir := half(t)
		d.slow = func(int) float64 { return 2 }
		opts := testOptions(t, d, dir)
		opts.OnChange = RemeasureOnChange
		report := mustRun(t, opts)
		if report.Reused != 0 {
			t.Errorf("%+v", report)
		}
		twice := newFakeDevice()
		twice.slow = d.slow
		other := t.TempDir()
		mustRun(t, testOptions(t, twice, other))
		sameTables(t, tables(t, dir), tables(t, other))
	})
}

// Without space for the journal the run ends with an error, and nothing that
// was reported as done is lost.
func TestRunOnAFullDisk(t *testing.T) {
	d, dir := newFakeDevice(), t.TempDir()
	opts := testOptions(t, d, dir)
	done := 0
	observe := opts.Observe
	opts.Observe = func(e Event) {
		if e.Kind == EventShot {
			done++
		}
		observe(e)
	}
	_, err := runWithJournal(t.Context(), opts, func(j *Journal) { j.file = &fullDisk{journalFile: j.file, left: 20_000} })
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("run: %v", err)
	}
	report := mustRun(t, testOptions(t, d, dir))
	if done == 0 || report.Reused < done {
		t.Errorf("%d shots were reported as done, %d are there: %+v", done, report.Reused, report)
	}
	sameTables(t, tables(t, dir), undisturbed(t))
}

// A clock that jumps changes nothing but the times that are written down.
func TestClockThatJumps(t *testing.T) {
	d, dir := newFakeDevice(), t.TempDir()
	opts := testOptions(t, d, dir)
	ticks := 0
	opts.Now = func() time.Time {
		ticks++
		return time.Unix(1_700_000_000, 0).Add(time.Duration(ticks%3-1) * 24 * 365 * time.Hour)
	}
	mustRun(t, opts)
	sameTables(t, tables(t, dir), undisturbed(t))
}

// A journal with a damaged record and a torn tail is told of, by file and
// offset, and what they held is measured again.
func TestRunOnADamagedJournal(t *testing.T) {
	d, dir := newFakeDevice(), t.TempDir()
	mustRun(t, testOptions(t, d, dir))
	file := filepath.Join(dir, JournalDir, DefaultShard+".jsonl")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 4
	if err := os.WriteFile(file, text[:len(text)-10], 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "tp1")); err != nil {
		t.Fatal(err)
	}
	opts := testOptions(t, d, dir)
	var warnings []string
	opts.Observe = func(e Event) {
		if e.Kind == EventWarning {
			warnings = append(warnings, e.Message)
		}
	}
	report := mustRun(t, opts)
	if len(warnings) != 2 || !strings.HasPrefix(warnings[0], file+":") || !strings.HasPrefix(warnings[1], file+":") {
		t.Errorf("warnings %q, expected two that begin with %s and an offset", warnings, file)
	}
	// The record at the end is an anchor, the other one may be one too.
	if report.Measured > 1 {
		t.Errorf("%d shots were measured again, expected at most 1", report.Measured)
	}
	sameTables(t, tables(t, dir), undisturbed(t))
}
