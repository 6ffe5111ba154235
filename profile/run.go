package profile

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// ErrStopped is why a run that was asked to end is partial.
var ErrStopped = errors.New("stopped before the plan was complete")

// Report is how a run ended.
type Report struct {
	Measured int // shots measured by this run, repeats for drift among them
	Reused   int // shots that had been measured before
	Missing  int // shots of the degrees begun that are not measured, the failed among them
	Failed   []FailedShot
	// Infeasible counts planned shots that the engine refused as beyond its
	// limits. They are left out for good, and do not make a run partial.
	Infeasible int
	Stopped    bool
	// Unbegun: the run was stopped before it saw what had been measured before.
	Unbegun bool
	Boots   int
	Redone  int   // shots measured again because the device had drifted
	Shard   Shard // that was measured; zero: the whole plan
	// Workloads are the lists of requests that were served for their steps;
	// ReusedWorkloads those that had been before.
	Workloads, ReusedWorkloads int
	Steps                      int // of those that this run served
	Dir                        string
}

// Partial reports whether planned shots are left without a measurement.
func (r *Report) Partial() bool { return r.Stopped || r.Missing > 0 || len(r.Failed) > 0 }

// FailedShot is a shot that was set aside.
type FailedShot struct {
	TP       int
	Category Category
	Shape    string
	Status   Status
	Message  string // the driver's last words
}

// Difference is one key of two fingerprints that do not agree; an empty value
// is one that is absent.
type Difference struct {
	Key      string
	Was, Now string
}

// EnvironmentError says that earlier measurements of the bundle were made in
// another environment.
type EnvironmentError struct {
	TP          int
	Differences []Difference
}

func (e *EnvironmentError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "tp%d was measured in another environment:", e.TP)
	for _, d := range e.Differences {
		fmt.Fprintf(&b, "\n  %s: was %s, is %s", d.Key, orAbsent(d.Was), orAbsent(d.Now))
	}
	return b.String()
}

func orAbsent(s string) string {
	if s == "" {
		return "absent"
	}
	return fmt.Sprintf("%q", s)
}

// Run measures what the plan wants and the bundle's journal does not hold yet,
// and derives the bundle from the journal. Cancelling ctx ends the run at once;
// closing opts.Stop lets it finish the shot in flight and write. What was
// measured is kept in every case. A run that ends early or with failed shots
// is no error: its Report is partial. A shard of another number than those that
// the bundle has is a *DivisionError. The report is there even with an error.
func Run(ctx context.Context, opts RunOptions) (*Report, error) {
	return runWithJournal(ctx, opts, func(*Journal) {})
}

// runWithJournal is Run; prepare may change the journal before it is used.
func runWithJournal(ctx context.Context, opts RunOptions, prepare func(*Journal)) (report *Report, err error) {
	report = &Report{Dir: opts.Dir, Shard: opts.Shard}
	opts, err = opts.filled()
	if err != nil {
		return report, err
	}
	sharded := opts.Shard.Count > 0
	lock, err := acquireLock(filepath.Join(opts.Dir, JournalDir), lockName(opts.Shard), lockWatch)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if sharded && !opts.redivide {
		if err := CheckDivision(opts.Dir, opts.Shard); err != nil {
			return report, err
		}
	}
	if !sharded { // other shards may be writing
		if err := removeLeftovers(opts.Dir); err != nil {
			return report, err
		}
	}
	journal, err := OpenJournal(filepath.Join(opts.Dir, JournalDir), opts.Shard.JournalName())
	if err != nil {
		return report, err
	}
	prepare(journal)
	r := &runner{RunOptions: opts, report: report, journal: journal, lock: lock, began: time.Now()}
	defer func() { err = errors.Join(err, r.closeDriver(), r.journal.Close()) }()
	for _, d := range journal.Torn {
		switch {
		case d.File == journal.own:
			r.warn("%v: cut off", d)
		case !sharded: // with other shards at work that is a record being written
			r.warn("%v: passed over", d)
		}
	}
	for _, d := range journal.Damages {
		r.warn("%v: skipped; what it held is measured again", d)
	}
	err = r.run(ctx)
	return report, errors.Join(err, r.noteEnd(err))
}

// How a run ended, as its journal tells who watches.
const (
	EndComplete = "complete"
	EndPartial  = "partial"
)

// noteEnd writes down that the run ended, and how. A run that was killed ends
// without.
func (r *runner) noteEnd(err error) error {
	outcome := EndComplete
	switch {
	case err != nil:
		outcome = err.Error()
	case r.report.Partial():
		outcome = EndPartial
	}
	if r.journal.err != nil {
		return nil // which is why the run ended
	}
	return r.journal.append(&record{Kind: recordEnd, TimeMS: r.Now().UnixMilli(), Message: outcome})
}

// runner is one run.
type runner struct {
	RunOptions
	report  *Report
	begun   bool // a degree has been announced
	journal *Journal
	lock    *Lock
	began   time.Time

	driver      Driver
	description Description
	degree      *degree // the one being measured
	inARow      int     // failures since the last success, first attempts alone
	lastFailure string
	shards      []ShardReport // of a merge
	sumsOf      int           // runs that the bundle's skew times are sums of; 0: they are means
}

// degree is one tensor-parallel degree being measured.
type degree struct {
	tp     int
	engine *Engine
	up     bool // the engine runs
	env    string
	envs   []string // env and those whose measurements count for it
	plan   TPPlan
	tasks  []*task
	// imported counts the planned shots that an earlier table answers: they
	// are no tasks.
	imported map[Category]int
	anchor   *task
	last     *record // the last anchor since the engine's boot
	// keepRows: rows that the bundle holds beyond the plan stay.
	keepRows     bool
	anchorFailed int
	written      bool // what is measured is in the tables
	fit          *SkewFit
}

func (r *runner) emit(e Event) {
	e.Elapsed = time.Since(r.began)
	if e.TP == 0 && r.degree != nil {
		e.TP = r.degree.tp
	}
	r.Observe(e)
}

func (r *runner) warn(format string, args ...any) {
	r.emit(Event{Kind: EventWarning, Message: fmt.Sprintf(format, args...)})
}

// stopping reports whether the run was asked to end, or has lost its lock to
// another one, which Release will say.
func (r *runner) stopping() bool {
	select {
	case <-r.Stop:
		return true
	case <-r.lock.Lost():
		return true
	default:
		return false
	}
}

func (r *runner) run(ctx context.Context) error {
	if err := r.checkTPMode(); err != nil {
		return err
	}
	for _, tp := range r.TPs {
		if r.Steps != nil && r.Steps.Alone {
			break
		}
		runDegree := r.runDegree
		if r.Shard.Count > 0 {
			runDegree = r.runShardDegree
		}
		err := runDegree(ctx, tp)
		if errors.Is(err, ErrStopped) {
			r.report.Stopped, r.report.Unbegun = true, !r.begun
			r.emit(Event{Kind: EventStopping})
			return r.write()
		}
		if err != nil {
			// What is on disk stays; the tables show it where they can.
			return errors.Join(err, r.writeAfter(err))
		}
	}
	return r.runSteps(ctx)
}

// writeAfter writes the tables after a failure, unless nothing was planned yet
// or the failure is one of writing.
func (r *runner) writeAfter(err error) error {
	var environment *EnvironmentError
	if r.degree == nil || r.degree.tasks == nil || r.journal.err != nil || errors.As(err, &environment) {
		return nil
	}
	return r.write()
}

// warnOfOtherNames says where a replay's numbers are another model's, hardware's
// or variant's than the bundle that they go into.
func (r *runner) warnOfOtherNames() {
	of, _ := r.degree.engine.Provenance["replayed_from"].(map[string]any)
	for _, name := range []struct{ key, here string }{
		{"model", r.Spec.Model.ID}, {"hardware", r.Hardware}, {"variant", r.Variant},
	} {
		if there, _ := of[name.key].(string); there != "" && there != name.here {
			r.warn("%s: what is replayed was measured as %s and is written as %s", name.key, there, name.here)
		}
	}
}

func (r *runner) runDegree(ctx context.Context, tp int) error {
	r.degree = &degree{tp: tp}
	if err := r.bootDegree(ctx); err != nil {
		return err
	}
	d := r.degree
	plan, err := r.Plan(tp, d.engine)
	if err != nil {
		return fmt.Errorf("tp%d: plan: %w", tp, err)
	}
	d.plan = plan
	if err := r.importRows(); err != nil {
		return err
	}
	r.makeTasks()
	return r.measureDegree(ctx)
}

// bootDegree starts the degree's engine, the first one of the run with what
// comes before anything is measured.
func (r *runner) bootDegree(ctx context.Context) error {
	if r.stopping() {
		return ErrStopped
	}
	if err := r.boot(ctx); err != nil {
		return err
	}
	if begin := r.Begin; begin != nil {
		r.Begin = nil
		if err := begin(); err != nil {
			return err
		}
	}
	if r.degree.tp == r.TPs[0] {
		r.warnOfOtherNames()
	}
	return nil
}

// measureDegree measures the degree's tasks and has the tables written.
func (r *runner) measureDegree(ctx context.Context) error {
	d := r.degree
	err := r.measure(ctx)
	for _, t := range d.tasks {
		if t.aside || r.missing(t) > 0 {
			r.report.Missing++
		}
	}
	if err != nil || d.written {
		return err
	}
	return r.write()
}
