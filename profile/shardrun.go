package profile

import (
	"context"
	"errors"
	"path/filepath"
)

// runShardDegree measures this run's shard of one degree into its own file of
// the journal. The tables are MergeShards' to make.
func (r *runner) runShardDegree(ctx context.Context, tp int) error {
	done, err := r.shardDone(tp)
	if done || err != nil {
		return err
	}
	r.degree = &degree{tp: tp}
	if err := r.bootDegree(ctx); err != nil {
		return err
	}
	plan, err := r.agreePlan(ctx)
	if err != nil {
		return err
	}
	if err := r.rereadJournal(); err != nil {
		return err
	}
	r.degree.plan, r.Costs = plan.plan(), plan.Costs
	r.makeTasks()
	return r.measureDegree(ctx)
}

// shardDone reports whether the journal holds all of the degree's shard: then
// no engine is needed to say so.
func (r *runner) shardDone(tp int) (bool, error) {
	plan, err := r.agreedPlan(tp)
	if errors.Is(err, ErrDamagedPlan) {
		return false, nil // said and mended once the engine runs
	}
	if plan == nil || err != nil {
		return false, err
	}
	engine, err := plan.engine()
	if err != nil {
		return false, err
	}
	before := r.degree
	x := &r.journal.index
	r.degree = &degree{tp: tp, engine: engine, plan: plan.plan(), envs: x.related(environmentID(engine.Fingerprint))}
	r.Costs = plan.Costs
	r.makeTasks()
	for _, t := range r.degree.tasks {
		if r.missing(t) > 0 {
			r.degree = before
			return false, nil
		}
	}
	for _, category := range runOrder {
		r.announce(category)
	}
	return true, nil
}

// rereadJournal sees what other shards have written since the journal was
// opened, the rows that an earlier bundle had among it.
func (r *runner) rereadJournal() error {
	journal, err := OpenJournal(filepath.Join(r.Dir, JournalDir), r.Shard.JournalName())
	if err != nil {
		return err
	}
	old := r.journal
	r.journal = journal
	return old.Close()
}
