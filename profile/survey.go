package profile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Survey is what a sweep has measured and what it lacks, found without an
// engine.
type Survey struct {
	Dir   string
	Shots int // planned measurements, infeasible ones left out
	Left  int // of them, not measured
	// Begun is the number of shards that the sweep is divided in already; 0: none.
	Begun int
	// Unplanned says of degrees that shards have measured why their plan cannot
	// be read. Any shard that runs makes it anew; without it there is no merge.
	Unplanned []error
	// Seconds is the estimate for all, and LeftSeconds for what is left, both
	// without boots. Paced: they go by the pace at which the sweep was measured
	// so far, else by Costs alone.
	Seconds, LeftSeconds float64
	Paced                bool
	Costs                Costs
	scale                float64 // how much longer shots took than Costs say
	degrees              []surveyedDegree
}

// surveyedDegree is one degree's tasks, and whether each is left to measure.
type surveyedDegree struct {
	tasks []*task
	left  []bool
}

// ShardSurvey is what one shard has to do.
type ShardSurvey struct {
	Shard   Shard
	Shots   int
	Left    int
	Seconds float64 // for what is left, with a boot for each degree that has any
}

// NewSurvey sees what the folder of a sweep holds. opts are those that the sweep
// runs with, but for Open; engine is called for degrees whose shards have not agreed on a
// plan yet, and gives the limits to plan by. Rows of a bundle without a journal
// count as measured.
func NewSurvey(opts RunOptions, engine func(tp int) (*Engine, error)) (*Survey, error) {
	opts.Open = func() (Driver, error) { return nil, errors.New("survey: no driver") }
	opts, err := opts.filled()
	if err != nil {
		return nil, err
	}
	opts.OnChange = KeepOnChange // which environment will run is not known yet
	s := &Survey{Dir: opts.Dir, Costs: opts.Costs}
	files, err := journalFiles(filepath.Join(opts.Dir, JournalDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	journal, err := readJournal(files)
	if err != nil {
		return nil, err
	}
	journal.memory = true
	if found := divisions(files); len(found) > 0 {
		s.Begun = found[len(found)-1]
	}
	for _, tp := range opts.TPs {
		r := &runner{RunOptions: opts, report: &Report{}, journal: journal}
		if err := r.survey(s, tp, engine); err != nil {
			return nil, err
		}
	}
	s.pace(&journal.index)
	return s, nil
}

const (
	// paceShots is the least number of shots that a pace is taken from.
	paceShots = 100
	// pauseMS is a gap between two shots in which something else happened: a boot,
	// a wait in a queue.
	pauseMS = 20_000
)

// pace scales the estimates by the time that lay between shots so far.
func (s *Survey) pace(x *journalIndex) {
	s.scale = 1
	times := make(map[int][]int64) // by file
	for _, list := range x.shots {
		for _, shot := range list {
			if !shot.Imported {
				times[shot.block.shard] = append(times[shot.block.shard], shot.TimeMS)
			}
		}
	}
	took, gaps := 0.0, 0
	for _, list := range times {
		slices.Sort(list)
		for i := 1; i < len(list); i++ {
			if gap := list[i] - list[i-1]; gap < pauseMS {
				took += float64(gap) / 1000
				gaps++
			}
		}
	}
	measured, estimated := 0, 0.0
	for _, d := range s.degrees {
		for i, t := range d.tasks {
			if t.have > 0 && !t.infeasible && !d.left[i] {
				measured++
				estimated += s.Costs.Shot(&t.shot, splitRuns)
			}
		}
	}
	if gaps < paceShots || measured < paceShots || took == 0 {
		return
	}
	s.Paced = true
	s.scale = (took / float64(gaps)) / (estimated / float64(measured))
	s.Seconds *= s.scale
	s.LeftSeconds *= s.scale
}

func (r *runner) survey(s *Survey, tp int, engine func(tp int) (*Engine, error)) error {
	r.Observe = func(Event) {}
	plan, unreadable := r.agreedPlan(tp)
	if unreadable != nil && !errors.Is(unreadable, ErrDamagedPlan) {
		return unreadable
	}
	x := &r.journal.index
	d := &degree{tp: tp}
	r.degree = d
	var err error
	if plan != nil {
		d.plan = plan.plan()
		if d.engine, err = plan.engine(); err != nil {
			return err
		}
		d.env = environmentID(d.engine.Fingerprint)
		s.Costs = plan.Costs
	} else {
		if d.engine, err = engine(tp); err != nil {
			return fmt.Errorf("tp%d: %w", tp, err)
		}
		if d.plan, err = r.Plan(tp, d.engine); err != nil {
			return fmt.Errorf("tp%d: plan: %w", tp, err)
		}
		d.env = x.current[tp]
		d.envs = x.related(d.env)
		if err := r.importRows(); err != nil {
			return err
		}
	}
	d.envs = x.related(d.env)
	tasks := surveyedDegree{tasks: r.wantedTasks()}
	for _, n := range d.imported {
		s.Shots += n
	}
	for _, t := range tasks.tasks {
		r.count(t)
		left := r.missing(t) > 0
		tasks.left = append(tasks.left, left)
		if t.infeasible {
			continue
		}
		seconds := s.Costs.Shot(&t.shot, splitRuns)
		s.Shots++
		s.Seconds += seconds
		if left {
			s.Left++
			s.LeftSeconds += seconds
		}
	}
	if plan == nil && unreadable == nil && s.Begun > 0 && !slices.Contains(tasks.left, true) {
		unreadable = fmt.Errorf("%s: %w", shardPlanPath(r.Dir, tp), errPlanAbsent)
	}
	if unreadable != nil {
		s.Unplanned = append(s.Unplanned, unreadable)
	}
	s.degrees = append(s.degrees, tasks)
	return nil
}

// ShardsWithin is the least number of shards each of which keeps within a time
// in seconds, boots included, were nothing measured yet.
func (s *Survey) ShardsWithin(seconds float64) (int, error) {
	boots := s.Costs.BootSeconds * float64(len(s.degrees))
	if seconds <= boots {
		return 0, fmt.Errorf("%.0f s are not enough for the engine's boots, about %.0f s", seconds, boots)
	}
	n := int(s.Seconds/(seconds-boots)) + 1
	if n > MaxShards {
		return 0, fmt.Errorf("it would take %d shards, at most %d can be", n, MaxShards)
	}
	return n, nil
}

// Shards divides the sweep in n.
func (s *Survey) Shards(n int) []ShardSurvey {
	shards := make([]ShardSurvey, n)
	for i := range shards {
		shards[i].Shard = Shard{i, n}
	}
	for _, d := range s.degrees {
		booted := make([]bool, n)
		of, _ := splitTasks(d.tasks, n, s.Costs)
		for i, t := range d.tasks {
			if t.infeasible {
				continue
			}
			shard := &shards[of[i]]
			shard.Shots++
			if !d.left[i] {
				continue
			}
			if !booted[of[i]] {
				booted[of[i]] = true
				shard.Seconds += s.Costs.BootSeconds
			}
			shard.Left++
			shard.Seconds += s.scale * s.Costs.Shot(&t.shot, splitRuns)
		}
	}
	return shards
}
