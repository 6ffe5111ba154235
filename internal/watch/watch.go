// Package watch keeps up with a running profile by its journal: progress,
// anchors, spread, failures, pace. It reads and changes nothing.
package watch

import (
	"cmp"
	"fmt"
	"maps"
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
}

// part is what one shard measures of it.
type part struct {
	Part
	shard  string
	run    int            // that planned it
	before int            // measured by earlier runs
	blocks map[string]int // the block of each shot measured by this one
}

// Status is what is known of a run.
type Status struct {
	Dir     string `json:"dir"`
	State   State  `json:"state"`
	Outcome string `json:"outcome,omitempty"` // complete, partial or an error
	// Host and PID are the run's, of several shards the first's; Holders is how
	// many there are.
	Host    string `json:"host,omitempty"`
	PID     int    `json:"pid,omitempty"`
	Holders int    `json:"holders,omitempty"`
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

	parts   []*part
	current map[string]*part // by shard
	degrees []int
	run     int // counts the runs seen
	booted  time.Time
	first   time.Time
	last    time.Time
	times   []time.Time // of the last shots
	spreads []float64   // likewise
	anchors map[string][]float64
	newest  string // anchor
	status  Status
	outcome map[string]string // by shard: how its last run ended, "" while it goes on
	failed  map[string]bool   // by shot
	beats   map[string]beat   // by lock, of holders on other hosts
}

// beat is the last sign of life of a holder elsewhere.
type beat struct {
	text string
	at   time.Time // when it changed, on our clock
	seen bool      // to change
}

// New follows the run of the bundle in folder dir.
func New(dir string) *Watcher {
	return &Watcher{
		dir: dir, tail: profile.TailJournal(dir), now: time.Now, current: map[string]*part{}, anchors: map[string][]float64{},
		outcome: map[string]string{}, failed: map[string]bool{}, beats: map[string]beat{},
	}
}

// Poll reads what is new. The error of a bundle without a journal is
// fs.ErrNotExist.
func (w *Watcher) Poll() (*Status, error) {
	// The locks first: whoever ends writes before letting go of one.
	holders, err := profile.HoldersOf(w.dir)
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
	return w.sumUp(holders), nil
}

func (w *Watcher) add(e *profile.JournalEntry) {
	if !e.Time.IsZero() {
		if ended := len(w.outcome) > 0 && !w.going(); w.first.IsZero() || ended && e.Kind != profile.EntryEnd {
			w.begin(e.Time)
		}
		w.last = e.Time
	}
	w.outcome[e.Shard] = ""
	switch e.Kind {
	case profile.EntryBoot:
		w.status.Boots++
		w.booted = e.Time
	case profile.EntryPlan:
		w.degrees = e.Degrees
		p := w.part(e)
		// A run plans each category once, but for whole steps, which it counts that
		// way: this is another run, and the one before was killed. Of several shards
		// one alone may have been.
		if p.run == w.run && len(p.blocks)+p.Total > 0 && e.Category != profile.Step && len(w.outcome) == 1 {
			boots := 0
			from := e.Time
			if n := len(w.times); !w.booted.IsZero() && (n == 0 || w.booted.After(w.times[n-1])) {
				from, boots = w.booted, 1
			}
			w.begin(from)
			w.status.Boots = boots
		}
		p.run = w.run
		p.Total, p.before, p.blocks = e.Total, e.Done, map[string]int{}
	case profile.EntryBegin:
		w.current[e.Shard] = w.part(e)
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
				if block == e.Block && p.TP == e.TP && p.shard == e.Shard {
					delete(p.blocks, shot)
				}
			}
		}
	case profile.EntryEnd:
		w.outcome[e.Shard] = e.Message
	}
	if e.Telemetry != nil {
		w.status.Device = e.Telemetry
	}
}

// begin counts from here on for another run.
func (w *Watcher) begin(at time.Time) {
	w.run++
	w.first, w.times = at, nil
	w.status.Boots, w.status.Redone = 0, 0
}

func (w *Watcher) addShot(e *profile.JournalEntry) {
	if e.Imported {
		return // its plan counts it
	}
	id := fmt.Sprintf("%d %s %s", e.TP, e.Scope, e.Shape)
	switch e.Status {
	case profile.OK:
	case profile.Infeasible:
		w.status.Infeasible++
		return
	default:
		w.failed[id] = true
		w.status.LastFailure = e.Message
		return
	}
	delete(w.failed, id)
	w.status.At = e.Shape
	if p := w.current[e.Shard]; p != nil && p.TP == e.TP {
		p.blocks[id] = e.Block
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

// part is the one that an entry is about.
func (w *Watcher) part(e *profile.JournalEntry) *part {
	for _, p := range w.parts {
		if p.shard == e.Shard && p.TP == e.TP && p.Category == string(e.Category) {
			return p
		}
	}
	p := &part{Part: Part{TP: e.TP, Category: string(e.Category)}, shard: e.Shard, blocks: map[string]int{}}
	w.parts = append(w.parts, p)
	return p
}

// going reports whether a shard has not said that it ended.
func (w *Watcher) going() bool {
	for _, outcome := range w.outcome {
		if outcome == "" {
			return true
		}
	}
	return false
}

// ended is how the shards ended: complete only if all are.
func (w *Watcher) ended() string {
	out := profile.EndComplete
	for _, shard := range slices.Sorted(maps.Keys(w.outcome)) {
		if o := w.outcome[shard]; o != profile.EndComplete && (out == profile.EndComplete || out == profile.EndPartial) {
			out = o
		}
	}
	return out
}

func (w *Watcher) sumUp(holders []profile.Holder) *Status {
	s := w.status
	s.Dir, s.Damaged, s.Failed, s.Holders = w.dir, w.tail.Damaged, len(w.failed), len(holders)
	s.State = w.state(holders)
	if s.State == Ended {
		s.Outcome = w.ended()
	}
	if len(holders) > 0 {
		s.Host, s.PID = holders[0].Host, holders[0].PID
	}
	s.Parts = []Part{}
	left := 0
	for _, p := range w.parts {
		done := min(p.before+len(p.blocks), max(p.Total, len(p.blocks)))
		left += max(p.Total-done, 0)
		i := slices.IndexFunc(s.Parts, func(o Part) bool { return o.TP == p.TP && o.Category == p.Category })
		if i < 0 {
			i = len(s.Parts)
			s.Parts = append(s.Parts, Part{TP: p.TP, Category: p.Category})
		}
		s.Parts[i].Done, s.Parts[i].Total = s.Parts[i].Done+done, s.Parts[i].Total+p.Total
	}
	for _, tp := range w.degrees {
		if !slices.ContainsFunc(w.parts, func(p *part) bool { return p.TP == tp }) {
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

// state of the run: that of the holder who is most alive.
func (w *Watcher) state(holders []profile.Holder) State {
	out := Gone
	for _, h := range holders {
		switch state := w.holder(h); {
		case state == Running:
			out = Running
		case state == Unknown && out == Gone:
			out = Unknown
		}
	}
	if out == Gone && len(w.outcome) > 0 && !w.going() {
		return Ended
	}
	return out
}

// holder: one on this host is alive or not; one elsewhere lives as long as its
// lock changes.
func (w *Watcher) holder(h profile.Holder) State {
	const patience = 10 * time.Second
	if h.Here {
		if h.Alive {
			return Running
		}
		return Gone
	}
	now, last := w.now(), w.beats[h.Lock]
	if last.text != h.Beat {
		last = beat{text: h.Beat, at: now, seen: last.text != ""}
		w.beats[h.Lock] = last
	}
	switch {
	case now.Sub(last.at) > patience:
		return Gone
	case last.seen:
		return Running
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
