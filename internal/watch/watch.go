// Package watch keeps up with a running profile by its journal: progress,
// anchors, spread, failures, pace. It reads and changes nothing.
package watch

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/layerprof/layerprof/profile"
)

// How much of the past the figures go by.
const (
	paceWindow  = 30 * time.Second
	recentShots = 500
)

// State of a run.
type State string

const (
	Running State = "running"
	// Ended by itself: Outcome says how.
	Ended State = "ended"
	// Gone: nobody holds the lock, and the run did not say that it ends.
	Gone State = "gone"
	// Unknown: another host holds the lock, which was not seen to change yet.
	Unknown State = "unknown"
)

// Part is one category of one degree.
type Part struct {
	TP       int    `json:"tp"`
	Category string `json:"category"`
	Done     int    `json:"done"`
	Total    int    `json:"total"`

	before int            // measured by earlier runs
	blocks map[string]int // the block of each shot measured by this one
}

// Status is what is known of a run.
type Status struct {
	Dir     string `json:"dir"`
	State   State  `json:"state"`
	Outcome string `json:"outcome,omitempty"` // complete, partial or an error
	Host    string `json:"host,omitempty"`
	PID     int    `json:"pid,omitempty"`
	Parts   []Part `json:"parts"`
	// NotPlanned are the degrees of the run whose plan is not made yet.
	NotPlanned []int  `json:"tp_not_planned,omitempty"`
	At         string `json:"at,omitempty"` // the last shot's shape
	// ShotsPerSecond over the last half minute; 0: not known.
	ShotsPerSecond float64 `json:"shots_per_s"`
	// SecondsLeft of the degrees planned, at that pace; absent where not known.
	SecondsLeft *float64 `json:"seconds_left,omitempty"`
	ElapsedS    float64  `json:"elapsed_s"`
	// SpreadP50 and SpreadP90 are of the samples' range over their median, in
	// percent, over the last shots; absent without shots of several samples.
	SpreadP50  *float64 `json:"spread_p50_percent,omitempty"`
	SpreadP90  *float64 `json:"spread_p90_percent,omitempty"`
	Anchors    Anchors  `json:"anchors"`
	Redone     int      `json:"blocks_redone"`
	Boots      int      `json:"boots"`
	Failed     int      `json:"failed"` // shots whose last attempt failed
	Infeasible int      `json:"infeasible"`
	// LastFailure is the last failure's words.
	LastFailure string             `json:"last_failure,omitempty"`
	Device      *profile.Telemetry `json:"device,omitempty"`
	Damaged     int                `json:"damaged_lines,omitempty"`
}

// Done reports whether nothing more is to come.
func (s *Status) Done() bool { return s.State == Ended || s.State == Gone }

// Anchors are the run's anchors in percent of their median.
type Anchors struct {
	Count   int     `json:"count"`
	Last    float64 `json:"last_percent"`
	Fastest float64 `json:"fastest_percent"`
	Slowest float64 `json:"slowest_percent"`
}

// Watcher follows one run. It is for one goroutine.
type Watcher struct {
	dir  string
	tail *profile.JournalTail
	now  func() time.Time

	parts   []*Part
	current *Part
	degrees []int
	first   time.Time
	last    time.Time
	times   []time.Time // of the last shots
	spreads []float64   // likewise
	anchors map[string][]float64
	newest  string // anchor
	status  Status
	outcome string
	failed  map[string]string // words by shot
	beat    string
	beatAt  time.Time // when the lock of another host changed last, on our clock
}

// New follows the run of the bundle in folder dir.
func New(dir string) *Watcher {
	return &Watcher{dir: dir, tail: profile.TailJournal(dir), now: time.Now, anchors: map[string][]float64{}, failed: map[string]string{}}
}

// Poll reads what is new. The error of a bundle without a journal is
// fs.ErrNotExist.
func (w *Watcher) Poll() (*Status, error) {
	// The lock first: whoever ends writes before letting go of it.
	holder, held, err := profile.HolderOf(w.dir)
	if err != nil {
		return nil, err
	}
	entries, err := w.tail.Next()
	if err != nil {
		return nil, err
	}
	for i := range entries {
		w.add(&entries[i])
	}
	return w.sumUp(holder, held), nil
}

func (w *Watcher) add(e *profile.JournalEntry) {
	if !e.Time.IsZero() {
		if w.first.IsZero() || w.outcome != "" && e.Kind != profile.EntryEnd {
			w.first, w.times = e.Time, nil // another run begins
		}
		w.last = e.Time
	}
	if e.Kind != profile.EntryEnd {
		w.outcome = ""
	}
	switch e.Kind {
	case profile.EntryBoot:
		w.status.Boots++
	case profile.EntryPlan:
		w.degrees = e.Degrees
		p := w.part(e.TP, e.Category)
		*p = Part{TP: e.TP, Category: string(e.Category), Total: e.Total, before: e.Done, blocks: map[string]int{}}
	case profile.EntryBegin:
		w.current = w.part(e.TP, e.Category)
	case profile.EntryShot:
		w.addShot(e)
	case profile.EntryAnchor:
		if e.LevelUS > 0 {
			w.newest = fmt.Sprintf("%d %s %s", e.TP, e.Scope, e.Shape)
			w.anchors[w.newest] = append(w.anchors[w.newest], e.LevelUS)
		}
	case profile.EntryRedo:
		w.status.Redone++
		for _, p := range w.parts {
			for shot, block := range p.blocks {
				if block == e.Block && p.TP == e.TP {
					delete(p.blocks, shot)
				}
			}
		}
	case profile.EntryEnd:
		w.outcome = e.Message
	}
	if e.Telemetry != nil {
		w.status.Device = e.Telemetry
	}
}

func (w *Watcher) addShot(e *profile.JournalEntry) {
	if e.Imported {
		return // its plan counts it
	}
	id := e.Scope + " " + e.Shape
	switch e.Status {
	case profile.OK:
	case profile.Infeasible:
		w.status.Infeasible++
		return
	default:
		w.failed[id] = e.Message
		w.status.LastFailure = e.Message
		return
	}
	delete(w.failed, id)
	w.status.At = e.Shape
	if w.current != nil && w.current.TP == e.TP {
		w.current.blocks[id] = e.Block
	}
	w.times = recent(w.times, e.Time, 50*recentShots)
	if e.Spread > 0 || e.Samples > 1 {
		w.spreads = recent(w.spreads, 100*e.Spread, recentShots)
	}
}

// recent appends and keeps the last most.
func recent[T any](list []T, v T, most int) []T {
	if list = append(list, v); len(list) >= 2*most {
		list = slices.Clone(list[len(list)-most:])
	}
	return list
}

func (w *Watcher) part(tp int, category profile.Category) *Part {
	for _, p := range w.parts {
		if p.TP == tp && p.Category == string(category) {
			return p
		}
	}
	p := &Part{TP: tp, Category: string(category), blocks: map[string]int{}}
	w.parts = append(w.parts, p)
	return p
}

func (w *Watcher) sumUp(holder profile.Holder, held bool) *Status {
	s := w.status
	s.Dir, s.Host, s.PID, s.Damaged, s.Failed = w.dir, holder.Host, holder.PID, w.tail.Damaged, len(w.failed)
	switch {
	case held && holder.Here && holder.Alive:
		s.State = Running
	case held && !holder.Here:
		s.State = w.elsewhere(holder)
	case w.outcome != "":
		s.State, s.Outcome = Ended, w.outcome
	default:
		s.State = Gone
	}
	s.Parts = []Part{}
	left := 0
	for _, p := range w.parts {
		p.Done = min(p.before+len(p.blocks), max(p.Total, len(p.blocks)))
		left += max(p.Total-p.Done, 0)
		s.Parts = append(s.Parts, *p)
	}
	for _, tp := range w.degrees {
		if !slices.ContainsFunc(w.parts, func(p *Part) bool { return p.TP == tp }) {
			s.NotPlanned = append(s.NotPlanned, tp)
		}
	}
	end := w.last
	if s.State == Running {
		end = w.now()
	}
	if !w.first.IsZero() {
		s.ElapsedS = end.Sub(w.first).Seconds()
	}
	if s.ShotsPerSecond = w.pace(end); s.ShotsPerSecond > 0 && s.State != Ended {
		seconds := float64(left) / s.ShotsPerSecond
		s.SecondsLeft = &seconds
	}
	if len(w.spreads) > 0 {
		sorted := slices.Sorted(slices.Values(w.spreads[max(0, len(w.spreads)-recentShots):]))
		p50, p90 := sorted[len(sorted)/2], sorted[len(sorted)*9/10]
		s.SpreadP50, s.SpreadP90 = &p50, &p90
	}
	s.Anchors = w.anchorState()
	return &s
}

// elsewhere: another host's holder lives as long as its lock changes.
func (w *Watcher) elsewhere(h profile.Holder) State {
	const patience = 10 * time.Second
	switch now := w.now(); {
	case w.beat == "":
		w.beat, w.beatAt = h.Beat, now
		return Unknown
	case w.beat != h.Beat:
		w.beat, w.beatAt = h.Beat, now
		return Running
	case now.Sub(w.beatAt) > patience:
		return Gone
	}
	return Unknown
}

// pace is shots a second in the window before end.
func (w *Watcher) pace(end time.Time) float64 {
	from := end.Add(-paceWindow)
	if w.first.After(from) {
		from = w.first
	}
	n := 0
	for _, t := range w.times {
		if t.After(from) && !t.After(end) {
			n++
		}
	}
	if seconds := end.Sub(from).Seconds(); seconds > 0 {
		return float64(n) / seconds
	}
	return 0
}

func (w *Watcher) anchorState() Anchors {
	var a Anchors
	for shape, levels := range w.anchors {
		sorted := slices.SortedFunc(slices.Values(levels), cmp.Compare[float64])
		middle := sorted[len(sorted)/2]
		percent := func(us float64) float64 { return 100 * (us/middle - 1) }
		a.Count += len(levels)
		a.Fastest, a.Slowest = math.Min(a.Fastest, percent(sorted[0])), math.Max(a.Slowest, percent(sorted[len(sorted)-1]))
		if shape == w.newest {
			a.Last = percent(levels[len(levels)-1])
		}
	}
	return a
}
