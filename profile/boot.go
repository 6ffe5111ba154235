package profile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// boot starts the degree's engine on a fresh driver and checks that it is the
// environment of earlier measurements.
func (r *runner) boot(ctx context.Context) error {
	d := r.degree
	const attempts = 3
	var err error
	for attempt := range attempts {
		if r.stopping() {
			return ErrStopped
		}
		message := ""
		if err != nil {
			message = fmt.Sprintf("attempt %d of %d, after: %v", attempt+1, attempts, err)
		}
		r.emit(Event{Kind: EventBooting, Message: message})
		booting, cancel := r.untilStopped(ctx)
		err = r.bootOnce(booting)
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return err
		}
		if r.stopping() {
			return ErrStopped // the time that is left is not enough for a boot
		}
	}
	if err != nil {
		return fmt.Errorf("tp%d: boot: %w", d.tp, err)
	}
	r.report.Boots++
	r.emit(Event{Kind: EventBooted, Message: d.engine.GPU})
	return r.checkEnvironment()
}

// untilStopped is ctx, ended too when the run is asked to end.
func (r *runner) untilStopped(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-r.Stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func (r *runner) bootOnce(ctx context.Context) error {
	d := r.degree
	if r.driver != nil && d.engine != nil {
		// The engine was lost, or a shot failed on it: nothing of it is kept.
		if err := r.closeDriver(); err != nil {
			r.warn("closing the driver: %v", err)
		}
	}
	if r.driver == nil {
		driver, err := r.Open()
		if err != nil {
			return err
		}
		r.driver = driver
		if r.description, err = driver.Describe(ctx); err != nil {
			return errors.Join(err, r.closeDriver())
		}
		if r.Costs == (Costs{}) {
			r.Costs = CostsAt(r.description.PaceShotsPerSecond)
		}
	}
	spec := r.Spec
	spec.TP = d.tp
	engine, err := r.driver.Boot(ctx, spec)
	if err == nil && engine == nil {
		err = errors.New("the driver gave no engine")
	}
	if err != nil {
		return errors.Join(err, r.closeDriver())
	}
	if engine.Limits.BlockSize < 1 {
		engine.Limits.BlockSize = 1
	}
	d.engine, d.up, d.last = engine, true, nil
	return nil
}

func (r *runner) closeDriver() error {
	if r.driver == nil {
		return nil
	}
	driver := r.driver
	r.driver = nil
	if r.degree != nil {
		r.degree.up = false
	}
	return driver.Close()
}

// checkEnvironment compares the engine's fingerprint with the one that the
// journal's measurements of this degree were made under, and records it.
func (r *runner) checkEnvironment() error {
	d, x := r.degree, &r.journal.index
	id := environmentID(d.engine.Fingerprint)
	was := x.current[d.tp]
	known := was == "" || slices.Contains(x.environmentsFor(was), id) || slices.Contains(x.environmentsFor(id), was)
	if !known && !x.measuredUnder(was, d.tp) {
		known = true
	}
	entry := &record{Kind: recordEnvironment, TimeMS: r.Now().UnixMilli(), Env: id, TP: d.tp, Place: r.Place}
	if x.environments[id] == nil {
		entry.Fingerprint = d.engine.Fingerprint
	}
	if !known {
		problem := &EnvironmentError{TP: d.tp, Differences: differences(x.environments[was], d.engine.Fingerprint)}
		switch r.OnChange {
		case StopOnChange:
			return problem
		case KeepOnChange:
			r.warn("%v\nearlier measurements are kept beside new ones", problem)
			accept := &record{Kind: recordAccept, TimeMS: r.Now().UnixMilli(), Env: id, Accepts: was}
			if err := r.journal.append(accept); err != nil {
				return err
			}
		case RemeasureOnChange:
			r.warn("%v\neverything is measured again", problem)
		}
	}
	if err := r.journal.append(entry); err != nil {
		return err
	}
	d.env, d.envs = id, x.environmentsFor(id)
	d.keepRows = !x.measuredElsewhere(d.envs, d.tp)
	return r.journal.sync()
}

// differences lists the keys in which two fingerprints differ.
func differences(was, now map[string]string) []Difference {
	if was == nil {
		return []Difference{{Key: "fingerprint", Was: "a record that is lost", Now: "known"}}
	}
	keys := make(map[string]bool)
	for k := range was {
		keys[k] = true
	}
	for k := range now {
		keys[k] = true
	}
	var list []Difference
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if was[k] != now[k] {
			list = append(list, Difference{Key: k, Was: was[k], Now: now[k]})
		}
	}
	return list
}
