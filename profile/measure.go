package profile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// hopeless is how many shots may fail one after the other, all else untried,
// before the run gives up on its driver.
const hopeless = 25

// HopelessError ends a run whose first shots all failed: the driver cannot
// measure. What was measured before is kept.
type HopelessError struct {
	Shots int    // that failed one after the other
	Last  string // what the driver said of the last
}

func (e *HopelessError) Error() string {
	return fmt.Sprintf("%d shots failed one after the other, the last with: %s", e.Shots, e.Last)
}

// measure works through the degree's tasks, a category at a time.
func (r *runner) measure(ctx context.Context) error {
	d := r.degree
	for _, category := range runOrder {
		r.announce(category)
	}
	for _, category := range runOrder {
		var todo []*task
		total := d.imported[category]
		for _, t := range d.tasks {
			if t.category != category {
				continue
			}
			total++
			if r.missing(t) > 0 {
				todo = append(todo, t)
			}
		}
		if total == 0 {
			continue
		}
		d.written = d.written && len(todo) == 0
		p := &pass{runner: r, category: category, total: total, done: total - len(todo)}
		begin := &record{Kind: recordBegin, TimeMS: r.Now().UnixMilli(), TP: d.tp, Category: category}
		if err := errors.Join(r.journal.append(begin), p.run(ctx, todo), p.commit()); err != nil {
			return err
		}
		r.emit(Event{Kind: EventCategory, Category: category, Done: p.done, Total: total})
		if len(todo) > 0 {
			if err := r.write(); err != nil {
				return err
			}
		}
	}
	return nil
}

// announce says how much of a category there is, and how much is measured.
func (r *runner) announce(category Category) {
	done := r.degree.imported[category]
	total := done
	for _, t := range r.degree.tasks {
		if t.category == category {
			total++
			if r.missing(t) == 0 {
				done++
			}
		}
	}
	r.begun = true
	r.report.Reused += done
	if total > 0 {
		// The journal keeps the error of a failed write for the next commit.
		_ = r.journal.append(&record{
			Kind: recordPlan, TimeMS: r.Now().UnixMilli(), TP: r.degree.tp, Category: category, Done: done, Total: total, Degrees: r.TPs,
		})
		r.emit(Event{Kind: EventPlanned, Category: category, Done: done, Total: total})
	}
}

// pass measures one category's tasks.
type pass struct {
	*runner
	category    Category
	total, done int
	retries     []*task
	unreported  []*task
	synced      time.Time
	block       int // the journal's number of the block being measured; 0: none yet
	inBlock     []*task
}

func (p *pass) run(ctx context.Context, todo []*task) error {
	if err := p.blocks(ctx, todo); err != nil {
		return err
	}
	// Each failing shot gets fresh drivers; one failed shot after the other is
	// tried, and only one that broke its engine costs a boot of its own.
	for len(p.retries) > 0 {
		again := p.retries
		p.retries = nil
		p.degree.up = false
		for _, t := range again {
			t.alone, t.retrying = true, false
		}
		if err := p.blocks(ctx, again); err != nil {
			return err
		}
	}
	return nil
}

// blocks measures tasks in blocks with anchors between them.
func (p *pass) blocks(ctx context.Context, todo []*task) error {
	for len(todo) > 0 {
		n := min(p.anchorEvery(), len(todo))
		block := todo[:n]
		todo = todo[n:]
		redo, err := p.runBlock(ctx, block)
		if err != nil {
			return err
		}
		todo = append(redo, todo...)
	}
	return nil
}

// runBlock measures a block of tasks and returns those to be measured again.
func (p *pass) runBlock(ctx context.Context, block []*task) ([]*task, error) {
	d := p.degree
	p.block = 0
	left := block
	for len(left) > 0 {
		if p.stopping() {
			return nil, errors.Join(ErrStopped, p.commit())
		}
		if !d.up {
			if err := errors.Join(p.commit(), p.boot(ctx)); err != nil {
				return nil, err
			}
			p.block = 0
		}
		if p.block == 0 {
			if d.last == nil && d.anchor != nil {
				if err := p.measureAnchor(ctx); err != nil {
					return nil, err
				}
				if !d.up {
					continue
				}
			}
			p.block, p.inBlock = p.journal.nextBlock(), p.inBlock[:0]
		}
		if err := p.fire(ctx, p.chunk(left)); err != nil {
			return nil, err
		}
		left = slices.DeleteFunc(slices.Clone(left), func(t *task) bool {
			return p.missing(t) == 0 || t.retrying
		})
	}
	redo, err := p.closeBlock(ctx)
	return redo, errors.Join(err, p.commitLate())
}

// chunk is the head of the tasks that one Measure call takes: equal layers and
// equal numbers of samples, at most what the driver likes.
func (p *pass) chunk(left []*task) []*task {
	size := max(p.description.BatchShots, 1)
	first := left[0]
	if first.alone {
		return left[:1]
	}
	var chunk []*task
	for _, t := range left {
		if !t.alone && t.layerSet == first.layerSet && p.missing(t) == p.missing(first) {
			chunk = append(chunk, t)
			if len(chunk) == size {
				break
			}
		}
	}
	return chunk
}

// fire measures one chunk and puts what failed on the list of retries.
func (p *pass) fire(ctx context.Context, chunk []*task) error {
	d := p.degree
	shots := make([]Shot, len(chunk))
	for i, t := range chunk {
		shots[i] = t.shot
	}
	options := MeasureOptions{
		Warmup: p.Warmup, Iterations: p.missing(chunk[0]), Layers: chunk[0].layers,
		FlushL2: p.FlushL2, Deadline: p.Deadline,
	}
	seen := make([]bool, len(chunk))
	err := p.call(ctx, shots, options, func(res Result) error {
		if res.Index < 0 || res.Index >= len(chunk) || seen[res.Index] {
			return fmt.Errorf("the driver answered shot %d of %d, or answered it twice", res.Index, len(chunk))
		}
		seen[res.Index] = true
		return p.take(chunk[res.Index], res)
	})
	if p.journal.err != nil {
		return p.journal.err
	}
	if errors.Is(err, ErrStopped) || ctx.Err() != nil {
		d.up = false
		return errors.Join(err, ctx.Err(), p.commit())
	}
	if err == nil {
		if i := slices.Index(seen, false); i >= 0 {
			err = &EngineLostError{Index: i, Err: errors.New("the driver gave no answer for a shot and no error")}
		}
	}
	if err != nil {
		d.up = false
		p.blame(chunk, seen, err)
	}
	if p.inARow >= hopeless {
		return errors.Join(&HopelessError{p.inARow, p.lastFailure}, p.commit())
	}
	return p.commitLate()
}

// groupCommit is how long measured shots may wait for the sync that lets them
// be reported as done.
const groupCommit = 50 * time.Millisecond

// blame decides which shot of a chunk the engine was lost to: the one that the
// driver names, or the only one, or else all are tried one by one.
func (p *pass) blame(chunk []*task, seen []bool, err error) {
	culprit := -1
	var lost *EngineLostError
	if errors.As(err, &lost) && lost.Index >= 0 && lost.Index < len(chunk) && !seen[lost.Index] {
		culprit = lost.Index
	}
	if i := slices.Index(seen, false); culprit < 0 && i >= 0 && !slices.Contains(seen[i+1:], false) {
		culprit = i
	}
	message := err.Error()
	if lost != nil && lost.LastWords != "" {
		message += "\n" + lost.LastWords
	}
	status := Failed
	if errors.Is(err, errDeadline) || errors.Is(err, context.DeadlineExceeded) {
		status = TimedOut
	}
	if culprit >= 0 {
		p.fail(chunk[culprit], Result{Status: status, Message: message})
		return
	}
	for i, t := range chunk {
		t.alone = t.alone || !seen[i]
	}
	p.warn("%s; its shots are tried one by one", message)
}

// take records a result.
func (p *pass) take(t *task, res Result) error {
	if res.Status == OK {
		if problem := checkResult(t, res); problem != "" {
			res.Status, res.Message = Failed, problem
		}
	}
	if res.Status != OK {
		p.fail(t, res)
		return nil
	}
	d := p.degree
	entry := &record{
		Kind: recordShot, TimeMS: p.Now().UnixMilli(), Env: d.env, TP: d.tp, Scope: t.scope, Shape: t.shape,
		Block: p.block, Status: OK, StepUS: res.StepUS, Unacc: res.Unaccounted, Telemetry: res.Telemetry,
		Executed: res.Executed, Layers: keptLayers(t, res), Collectives: collectiveRecords(res),
	}
	if err := p.journal.append(entry); err != nil {
		return err
	}
	p.inARow = 0
	p.report.Measured++
	p.count(t)
	p.inBlock = append(p.inBlock, t)
	if p.missing(t) == 0 {
		p.unreported = append(p.unreported, t)
	}
	return nil
}

// keptLayers are the layers that the task is for.
func keptLayers(t *task, res Result) []layerRecord {
	kept := make([]layerRecord, 0, len(t.layers))
	for _, l := range res.Layers {
		if _, ok := slices.BinarySearch(t.layers, l.Layer); ok {
			kept = append(kept, layerRecord{Layer: l.Layer, US: l.SamplesUS, Calls: l.Calls, Launches: l.Launches, Kernels: l.KernelsUS, RanksUS: l.RanksUS})
		}
	}
	return kept
}

// checkResult says what is wrong with a result that its driver calls good.
func checkResult(t *task, res Result) string {
	found := 0
	for _, l := range res.Layers {
		if _, ok := slices.BinarySearch(t.layers, l.Layer); !ok {
			continue
		}
		found++
		if len(l.SamplesUS) == 0 {
			return fmt.Sprintf("the driver gave no samples for layer %s", l.Layer)
		}
		for _, us := range l.SamplesUS {
			if !(us > 0) || math.IsInf(us, 0) {
				return fmt.Sprintf("the driver gave a time of %v us for layer %s", us, l.Layer)
			}
		}
	}
	if found < len(t.layers) {
		var missing []string
		for _, name := range t.layers {
			if !slices.ContainsFunc(res.Layers, func(l LayerResult) bool { return l.Layer == name }) {
				missing = append(missing, name)
			}
		}
		return "the driver gave no time for " + strings.Join(missing, ", ")
	}
	return ""
}

// fail notes a failed attempt: the shot is tried again, or set aside.
func (p *pass) fail(t *task, res Result) {
	if res.Status == Infeasible {
		p.exclude(t, res)
		return
	}
	if t.attempts == 0 {
		p.inARow++
	}
	p.lastFailure = res.Message
	t.attempts++
	t.failure = res
	if t.attempts <= p.Retries {
		t.retrying = true
		p.retries = append(p.retries, t)
		p.emit(Event{Kind: EventRetry, Category: t.category, Shape: t.shape, Done: p.done, Total: p.total, Message: res.Message})
		return
	}
	t.aside = true
	d := p.degree
	// That a shot failed is of use to people; the next run tries it again.
	_ = p.journal.append(&record{
		Kind: recordShot, TimeMS: p.Now().UnixMilli(), Env: d.env, TP: d.tp, Scope: t.scope, Shape: t.shape,
		Status: res.Status, Message: res.Message,
	})
	p.report.Failed = append(p.report.Failed, FailedShot{d.tp, t.category, t.shape, res.Status, res.Message})
	p.emit(Event{Kind: EventFailed, Category: t.category, Shape: t.shape, Done: p.done, Total: p.total, Message: res.Message})
}

// exclude leaves a shot out that the engine does not take, now and in later
// runs: no failure, and nothing that another try would change.
func (p *pass) exclude(t *task, res Result) {
	t.infeasible = true
	if p.report.Infeasible == 0 {
		p.warn("%s is beyond the engine's limits and left out, as may be others: %s", t, res.Message)
	}
	p.report.Infeasible++
	d := p.degree
	_ = p.journal.append(&record{
		Kind: recordShot, TimeMS: p.Now().UnixMilli(), Env: d.env, TP: d.tp, Scope: t.scope, Shape: t.shape,
		Status: Infeasible, Message: res.Message,
	})
}

// commitLate commits unless that was done a moment ago.
func (p *pass) commitLate() error {
	if time.Since(p.synced) < groupCommit {
		return nil
	}
	return p.commit()
}

// commit has what was measured on disk, and then says so.
func (p *pass) commit() error {
	if err := p.journal.sync(); err != nil {
		return err
	}
	p.synced = time.Now()
	for _, t := range p.unreported {
		p.done++
		p.emit(Event{Kind: EventShot, Category: t.category, Shape: t.shape, Done: p.done, Total: p.total})
	}
	p.unreported = p.unreported[:0]
	return nil
}
