package profile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/perfio"
)

// StepOptions say which whole steps a run measures, after its shots.
type StepOptions struct {
	// Modes are some of perfio.StepModes; nil: the driver's own.
	Modes []string
	// Layers are the depths to boot; nil: the model's own, and where that does not
	// fit in memory half of it and a quarter.
	Layers []int
	// Alone has nothing but steps measured: no engine is booted for shots.
	Alone bool
}

func (o *StepOptions) check() error {
	for _, mode := range o.Modes {
		if !isMode(mode) {
			return fmt.Errorf("step-modes: found %q, expected some of %v", mode, perfio.StepModes())
		}
	}
	for _, n := range o.Layers {
		if n < 1 {
			return fmt.Errorf("step-layers: found %d, expected at least 1", n)
		}
	}
	return nil
}

// warmUps is how often the warm-up is served after a boot.
const warmUps = 2

// stepsTP is the only degree with steps: an emulated one has none.
const stepsTP = 1

// stepRun measures the step category.
type stepRun struct {
	*runner
	modes  []string
	depths []int // nil: not known yet
	done   int
	total  int
	// counted are the workloads in done, by what is booted for them.
	counted map[servingKey]int
}

// runSteps measures whole steps, a boot a mode and depth.
func (r *runner) runSteps(ctx context.Context) error {
	if r.Steps == nil {
		return nil
	}
	s := &stepRun{runner: r, modes: r.Steps.Modes, depths: r.Steps.Layers, counted: make(map[servingKey]int)}
	err := s.run(ctx)
	if errors.Is(err, ErrStopped) {
		r.report.Stopped = true
		s.emit(Event{Kind: EventStopping, TP: stepsTP})
		err = nil
	}
	if r.journal.err != nil {
		return err
	}
	return errors.Join(err, r.writeSteps())
}

func (s *stepRun) tell(e Event) {
	e.TP, e.Category, e.Done, e.Total = stepsTP, Step, s.done, s.total
	if e.Kind == EventPlanned || e.Kind == EventShot {
		// For who watches. The journal keeps the error of a failed write for the next sync.
		_ = s.journal.append(&record{
			Kind: recordPlan, TimeMS: s.Now().UnixMilli(), TP: stepsTP, Category: Step, Done: s.done, Total: s.total, Degrees: s.TPs,
		})
	}
	s.emit(e)
}

func (s *stepRun) run(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	own, err := StepModesOf(ctx, s.driver)
	if err != nil {
		return err
	}
	if len(own) == 0 {
		return fmt.Errorf("step: driver %s has no steps", s.description.Name)
	}
	if s.modes == nil {
		s.modes = own
	}
	if replayer, ok := s.driver.(StepReplayer); ok {
		return s.replay(replayer)
	}
	if _, ok := s.driver.(StepDriver); !ok {
		return fmt.Errorf("step: driver %s serves no requests", s.description.Name)
	}
	for _, mode := range s.modes {
		if err := s.mode(ctx, mode); err != nil {
			return err
		}
	}
	if s.total > 0 {
		s.tell(Event{Kind: EventCategory})
	}
	return s.begin()
}

// open has a driver at hand, without an engine perhaps.
func (r *runner) open(ctx context.Context) error {
	if r.driver != nil {
		return nil
	}
	driver, err := r.Open()
	if err != nil {
		return err
	}
	r.driver = driver
	if r.description, err = driver.Describe(ctx); err != nil {
		return errors.Join(err, r.closeDriver())
	}
	return nil
}

// begin calls Begin, if nobody has yet.
func (r *runner) begin() error {
	begin := r.Begin
	r.Begin = nil
	if begin == nil {
		return nil
	}
	return begin()
}

// mode measures one mode at its depths.
func (s *stepRun) mode(ctx context.Context, mode string) error {
	depths := s.depths
	if depths == nil {
		depths = []int{s.Spec.Model.NumHiddenLayers}
	}
	for i := 0; i < len(depths); i++ {
		err := s.unit(ctx, mode, depths[i])
		if errors.Is(err, ErrOutOfMemory) && s.depths == nil && depths[i] >= 4 {
			why, _, _ := strings.Cut(err.Error(), "\n")
			s.warn("%s: %d layers do not fit, and %d and %d are measured in their place: %s", mode, depths[i], depths[i]/2, depths[i]/4, why)
			s.depths = []int{depths[i] / 2, depths[i] / 4}
			depths, i = s.depths, -1
			continue
		}
		var broken *unitError
		if errors.As(err, &broken) && !errors.Is(err, ErrStopped) && ctx.Err() == nil {
			s.setAside(mode, depths[i], "", broken.Error())
			continue
		}
		if err != nil {
			return err
		}
	}
	return s.writeSteps()
}

// unitError is a mode that cannot be measured: the others can.
type unitError struct{ error }

func (e *unitError) Unwrap() error { return e.error }

func (s *stepRun) setAside(mode string, layers int, workload, why string) {
	shape := fmt.Sprintf("%s, %d layers", mode, layers)
	if workload != "" {
		shape += ", " + workload
	}
	s.report.Failed = append(s.report.Failed, FailedShot{stepsTP, Step, shape, Failed, why})
	s.report.Missing++
	s.tell(Event{Kind: EventFailed, Shape: shape, Message: why})
}

// unit measures one mode at one depth: what the journal lacks of it.
func (s *stepRun) unit(ctx context.Context, mode string, layers int) error {
	x := &s.journal.index
	if known := x.serving[servingKey{stepsTP, mode, layers}]; known != nil {
		// Depths that were asked for are tried again: memory may have been short
		// for a reason that is gone.
		if known.Status == OutOfMemory && s.Steps.Layers == nil {
			return &unitError{fmt.Errorf("boot: %w", ErrOutOfMemory)}
		}
		if known.Status == OK {
			s.count(known)
			if len(s.missingOf(mode, layers, known)) == 0 {
				return nil
			}
		}
	}
	for attempt := 0; ; attempt++ {
		if s.stopping() {
			return ErrStopped
		}
		err := s.attempt(ctx, mode, layers)
		var lost *lostWorkload
		switch {
		case err == nil || s.journal.err != nil || ctx.Err() != nil || errors.Is(err, ErrStopped):
			return err
		case !errors.As(err, &lost):
			return err
		case attempt < max(s.Retries, 0):
			s.tell(Event{Kind: EventRetry, Shape: mode + " " + lost.name, Message: err.Error()})
		default:
			return &unitError{err}
		}
		if err := s.closeDriver(); err != nil {
			s.warn("closing the driver: %v", err)
		}
		if err := s.open(ctx); err != nil {
			return err
		}
	}
}

// count takes a unit's workloads into the totals, once it is known what they
// are, and what is done of them, which another environment may change.
func (s *stepRun) count(serving *record) {
	k := servingKey{stepsTP, serving.Steps.Mode, serving.Steps.Layers}
	all := len(StepWorkloads(serving.Steps.Facts.Limits, s.Seed))
	done := all - len(s.missingOf(k.mode, k.layers, serving))
	before, again := s.counted[k]
	if !again {
		s.total += all
	}
	s.done += done - before
	s.report.ReusedWorkloads += done - before
	s.counted[k] = done
	s.tell(Event{Kind: EventPlanned})
}

// missingOf are the workloads of a unit that the journal does not hold, measured
// in the environment of the boot.
func (s *stepRun) missingOf(mode string, layers int, serving *record) []Workload {
	var list []Workload
	for _, w := range StepWorkloads(serving.Steps.Facts.Limits, s.Seed) {
		if s.journal.index.stepsUnder(serving.Env, stepsKey{stepsTP, mode, layers, workloadID(&w)}) == nil {
			list = append(list, w)
		}
	}
	return list
}

// lostWorkload is a workload that the engine was lost to.
type lostWorkload struct {
	name string
	err  error
}

func (e *lostWorkload) Error() string { return e.name + ": " + e.err.Error() }
func (e *lostWorkload) Unwrap() error { return e.err }

// attempt boots the engine and serves what is missing.
func (s *stepRun) attempt(ctx context.Context, mode string, layers int) error {
	spec := ServingSpec{EngineSpec: s.Spec, Layers: layers, Mode: mode}
	spec.TP = stepsTP
	s.emit(Event{Kind: EventBooting, TP: stepsTP, Message: fmt.Sprintf("%s, %d layers", mode, layers)})
	driver := s.driver.(StepDriver)
	engine, err := driver.BootServing(ctx, spec)
	if err == nil && engine == nil {
		err = errors.New("the driver gave no engine")
	}
	if errors.Is(err, ErrOutOfMemory) {
		entry := &record{Kind: recordServing, TimeMS: s.Now().UnixMilli(), TP: stepsTP, Status: OutOfMemory, Message: err.Error(),
			Steps: &stepsRecord{Mode: mode, Layers: layers}}
		if err := errors.Join(s.journal.append(entry), s.journal.sync()); err != nil {
			return err
		}
	}
	switch {
	case errors.Is(err, ErrOutOfMemory):
		return &unitError{fmt.Errorf("boot: %w", err)}
	case ctx.Err() != nil:
		return errors.Join(ctx.Err(), err)
	case err != nil:
		return &lostWorkload{"boot", err}
	}
	if err := engine.Check(&spec); err != nil {
		return &unitError{fmt.Errorf("boot: %w", err)}
	}
	s.report.Boots++
	s.emit(Event{Kind: EventBooted, TP: stepsTP, Message: engine.GPU})
	serving, err := s.checkServing(engine, &spec)
	if err != nil {
		return err
	}
	s.count(serving)
	if err := ServeWarmUp(ctx, driver, engine.Limits, s.Seed); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &lostWorkload{"warm-up", err}
	}
	for _, w := range s.missingOf(mode, layers, serving) {
		if s.stopping() {
			return ErrStopped
		}
		served, err := s.serve(ctx, driver, w)
		if err != nil {
			return err
		}
		entry := &record{Kind: recordSteps, TimeMS: s.Now().UnixMilli(), Env: serving.Env, TP: stepsTP, Status: OK,
			Steps: &stepsRecord{Mode: mode, Layers: layers, Workload: workloadID(&w), Steps: served.Steps}}
		if err := errors.Join(s.journal.append(entry), s.journal.sync()); err != nil {
			return err
		}
		s.done++
		s.counted[servingKey{stepsTP, mode, layers}]++
		s.report.Workloads++
		s.report.Steps += len(served.Steps)
		s.tell(Event{Kind: EventShot, Shape: fmt.Sprintf("%s %s, %d steps", mode, w.Name, len(served.Steps))})
	}
	return nil
}

// serve is one workload, its steps checked.
func (s *stepRun) serve(ctx context.Context, driver StepDriver, w Workload) (*Served, error) {
	served, err := driver.Serve(ctx, w, nil)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &lostWorkload{w.Name, err}
	}
	if err := CheckSteps(served.Steps); err != nil {
		return nil, &lostWorkload{w.Name, err}
	}
	return served, nil
}

// checkServing compares the engine with the one that the journal's steps of the
// mode were measured on, and with the bundle's; it records the boot.
func (s *stepRun) checkServing(engine *ServingEngine, spec *ServingSpec) (*record, error) {
	x := &s.journal.index
	id := environmentID(engine.Fingerprint)
	entry := &record{Kind: recordServing, TimeMS: s.Now().UnixMilli(), Env: id, TP: stepsTP, Status: OK,
		Fingerprint: engine.Fingerprint,
		Steps:       &stepsRecord{Mode: spec.Mode, Layers: spec.Layers, Facts: factsOf(engine)}}
	var list []Difference
	was := x.serving[servingKey{stepsTP, spec.Mode, spec.Layers}]
	if was != nil && was.Status == OK && !slices.Contains(x.environmentsFor(was.Env), id) && x.hasSteps(was) {
		list = differences(was.Fingerprint, engine.Fingerprint)
	}
	meta, err := s.metaOnDisk()
	if err != nil {
		return nil, err
	}
	if meta != nil {
		for _, f := range []struct{ key, was, now string }{{"gpu", meta.GPU(), engine.GPU}, {"vllm_version", meta.VLLMVersion(), engine.VLLMVersion}} {
			if f.was != "" && f.now != "" && f.was != f.now && !slices.ContainsFunc(list, func(d Difference) bool { return d.Key == f.key }) {
				list = append(list, Difference{f.key, f.was, f.now})
			}
		}
	}
	if len(list) > 0 {
		problem := &EnvironmentError{TP: stepsTP, Differences: list}
		switch {
		case s.OnChange == StopOnChange:
			return nil, problem
		case s.OnChange == KeepOnChange && was != nil && was.Env != id:
			s.warn("%v\nearlier steps are kept beside new ones", problem)
			if err := s.journal.append(&record{Kind: recordAccept, TimeMS: s.Now().UnixMilli(), Env: id, Accepts: was.Env}); err != nil {
				return nil, err
			}
		default:
			s.warn("%v", problem)
		}
	}
	if err := errors.Join(s.journal.append(entry), s.journal.sync()); err != nil {
		return nil, err
	}
	return entry, s.begin()
}

// replay takes the rows of a driver that has them.
func (s *stepRun) replay(driver StepReplayer) error {
	for _, mode := range s.modes {
		list, err := driver.ReplaySteps(mode)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			s.setAside(mode, s.Spec.Model.NumHiddenLayers, "", "the source has no steps of this mode")
		}
		for _, found := range list {
			if err := s.replayed(mode, found); err != nil {
				return err
			}
		}
	}
	if s.total > 0 {
		s.tell(Event{Kind: EventCategory})
	}
	return errors.Join(s.journal.sync(), s.begin())
}

// replayed records one depth's rows, unless the journal has the very same.
func (s *stepRun) replayed(mode string, found ReplayedSteps) error {
	var table bytes.Buffer
	if err := perfio.WriteStep(&table, found.Rows); err != nil {
		return err
	}
	const source = "source"
	s.total++
	layers := found.Facts.Layers
	had := s.journal.index.steps[stepsKey{stepsTP, mode, layers, source}]
	if had != nil && had.Steps.Table == table.String() {
		s.done++
		s.report.ReusedWorkloads++
		s.tell(Event{Kind: EventPlanned})
		return nil
	}
	env := environmentID(map[string]string{"steps": "replayed"})
	for _, entry := range []*record{
		{Kind: recordServing, TimeMS: s.Now().UnixMilli(), Env: env, TP: stepsTP, Status: OK, Steps: &stepsRecord{Mode: mode, Layers: layers, Facts: found.Facts}},
		{Kind: recordSteps, TimeMS: s.Now().UnixMilli(), Env: env, TP: stepsTP, Status: OK,
			Steps: &stepsRecord{Mode: mode, Layers: layers, Workload: source, Table: table.String()}},
	} {
		if err := s.journal.append(entry); err != nil {
			return err
		}
	}
	s.done++
	s.report.Workloads++
	s.report.Steps += len(found.Rows)
	s.tell(Event{Kind: EventShot, Shape: fmt.Sprintf("%s, %d layers", mode, layers)})
	return nil
}

// workloadID is a workload's name with what its contents come to.
func workloadID(w *Workload) string {
	text, err := json.Marshal(w)
	if err != nil {
		return w.Name // cannot be: numbers and text
	}
	sum := sha256.Sum256(text)
	return w.Name + ":" + hex.EncodeToString(sum[:4])
}
