package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/layerprof/layerprof/profile"
)

// progress shows a run. Its methods may be called from any goroutine.
type progress interface {
	observe(profile.Event)
	// note shows a line of text.
	note(text string)
	// close ends the show; it is called once, after the last event.
	close()
}

// newProgress shows bars on a terminal and lines elsewhere, or JSON objects.
func newProgress(w io.Writer, format string) (progress, error) {
	if format == "json" {
		return &jsonProgress{encoder: json.NewEncoder(w)}, nil
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return newBarProgress(w), nil
	}
	return newLineProgress(w), nil
}

// part is how far a tp's category is.
type part struct {
	tp          int
	category    profile.Category
	done, total int
	shape       string // the last shot measured
	retries     int
	failed      int
	from        int // done when began
	began       time.Time
	ended       time.Time // zero while it goes on
}

func (p *part) title() string { return fmt.Sprintf("tp%d %s", p.tp, p.category) }

// rate is shots per second, 0 while it is not known.
func (p *part) rate() float64 {
	elapsed := time.Since(p.began).Seconds()
	if !p.ended.IsZero() {
		elapsed = p.ended.Sub(p.began).Seconds()
	}
	if p.began.IsZero() || elapsed <= 0 || p.done <= p.from {
		return 0
	}
	return float64(p.done-p.from) / elapsed
}

// measuredUnits names what a category counts.
func measuredUnits(c profile.Category) string {
	if c == profile.Step {
		return "workloads"
	}
	return "shots"
}

// left is the time that the rest takes at that rate, as text.
func (p *part) left() string {
	rate := p.rate()
	if rate == 0 {
		return "?"
	}
	return time.Duration(float64(p.total-p.done) / rate * float64(time.Second)).Round(time.Second).String()
}

func (p *part) line() string {
	text := fmt.Sprintf("%s %d/%d", p.title(), p.done, p.total)
	switch {
	case p.rate() <= 0:
	case p.category == profile.Step: // a few workloads of many seconds
		text += fmt.Sprintf(", %s left", p.left())
	default:
		text += fmt.Sprintf(", %.1f shots/s, %s left", p.rate(), p.left())
	}
	if p.shape != "" {
		text += ", at " + p.shape
	}
	return text + p.troubles()
}

func (p *part) troubles() string {
	text := ""
	if p.retries > 0 {
		text += fmt.Sprintf(", %d retries", p.retries)
	}
	if p.failed > 0 {
		text += fmt.Sprintf(", %d failed", p.failed)
	}
	return text
}

// parts follows the events of a run.
type parts struct {
	list    []*part
	current *part
}

// update takes an event in and returns the part that it is about, if any.
func (l *parts) update(e profile.Event) *part {
	if e.Category == "" {
		return nil
	}
	var p *part
	for _, q := range l.list {
		if q.tp == e.TP && q.category == e.Category {
			p = q
		}
	}
	if p == nil {
		p = &part{tp: e.TP, category: e.Category, done: e.Done, total: e.Total}
		l.list = append(l.list, p)
	}
	switch e.Kind {
	case profile.EventPlanned, profile.EventCategory:
		p.done, p.total = e.Done, e.Total
		if e.Kind == profile.EventCategory {
			p.ended = time.Now()
		}
		return p
	case profile.EventRetry:
		p.retries++
	case profile.EventFailed:
		p.failed++
	}
	if p.began.IsZero() {
		p.began, p.from = time.Now(), p.done
	}
	p.done = e.Done
	if e.Kind == profile.EventShot {
		p.shape = e.Shape
	}
	l.current = p
	return p
}

// text says what a rare event means; "" for those that progress itself shows.
func eventText(e profile.Event) string {
	text := eventWords(e)
	if text != "" && e.Device != "" {
		text = e.Device + ": " + text
	}
	return text
}

func eventWords(e profile.Event) string {
	switch e.Kind {
	case profile.EventBooting:
		if e.Message != "" {
			return fmt.Sprintf("tp%d: starting the engine, %s", e.TP, e.Message)
		}
		return fmt.Sprintf("tp%d: starting the engine", e.TP)
	case profile.EventBooted:
		return fmt.Sprintf("tp%d: the engine runs on %s", e.TP, e.Message)
	case profile.EventRetry:
		return fmt.Sprintf("tp%d %s %s failed and will be tried again: %s", e.TP, e.Category, e.Shape, e.Message)
	case profile.EventFailed:
		return fmt.Sprintf("tp%d %s %s is set aside: %s", e.TP, e.Category, e.Shape, e.Message)
	case profile.EventRedo:
		return fmt.Sprintf("tp%d %s: the device drifted, the last %d shots are measured again", e.TP, e.Category, e.Total)
	case profile.EventWarning:
		return "warning: " + e.Message
	}
	return ""
}

// lineProgress prints a line now and then.
type lineProgress struct {
	mu    sync.Mutex
	w     io.Writer
	parts parts
	stop  chan struct{}
	wg    sync.WaitGroup
}

// lineEvery is how often progress is printed where there is no terminal.
const lineEvery = 30 * time.Second

func newLineProgress(w io.Writer) *lineProgress {
	p := &lineProgress{w: w, stop: make(chan struct{})}
	p.wg.Go(func() {
		ticker := time.NewTicker(lineEvery)
		defer ticker.Stop()
		for {
			select {
			case <-p.stop:
				return
			case <-ticker.C:
				p.mu.Lock()
				if c := p.parts.current; c != nil && c.ended.IsZero() {
					p.print(c.line())
				}
				p.mu.Unlock()
			}
		}
	})
	return p
}

func (p *lineProgress) print(text string) { fmt.Fprintln(p.w, text) }

func (p *lineProgress) observe(e profile.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.parts.update(e)
	switch e.Kind {
	case profile.EventPlanned, profile.EventCategory:
		if e.Device != "" && (e.Kind == profile.EventPlanned || e.Done < e.Total) {
			return // one of several devices begins or ends its part
		}
	}
	switch e.Kind {
	case profile.EventPlanned:
		p.print(fmt.Sprintf("tp%d %s: %d %s, %d measured already", e.TP, e.Category, e.Total, measuredUnits(e.Category), e.Done))
	case profile.EventCategory:
		p.print(fmt.Sprintf("tp%d %s: %d of %d measured%s", e.TP, e.Category, e.Done, e.Total, at.troubles()))
	default:
		if text := eventText(e); text != "" {
			p.print(text)
		}
	}
}

func (p *lineProgress) note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.print(text)
}

func (p *lineProgress) close() {
	close(p.stop)
	p.wg.Wait()
}

// jsonProgress prints every event as an object.
type jsonProgress struct {
	mu      sync.Mutex
	encoder *json.Encoder
}

type jsonEvent struct {
	Time     string            `json:"time"`
	Event    profile.EventKind `json:"event"`
	Device   string            `json:"device,omitempty"`
	TP       int               `json:"tp,omitempty"`
	Category profile.Category  `json:"category,omitempty"`
	Shape    string            `json:"shape,omitempty"`
	Done     *int              `json:"done,omitempty"`
	Total    *int              `json:"total,omitempty"`
	Message  string            `json:"message,omitempty"`
	ElapsedS float64           `json:"elapsed_s"`
}

func (p *jsonProgress) observe(e profile.Event) {
	out := jsonEvent{
		Time: time.Now().UTC().Format(time.RFC3339Nano), Event: e.Kind, Device: e.Device, TP: e.TP, Category: e.Category,
		Shape: e.Shape, Message: e.Message, ElapsedS: e.Elapsed.Seconds(),
	}
	if e.Category != "" {
		out.Done, out.Total = &e.Done, &e.Total
	}
	p.print(out)
}

func (p *jsonProgress) print(out jsonEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A log that cannot be written stops no measurement.
	_ = p.encoder.Encode(out)
}

func (p *jsonProgress) note(text string) {
	p.print(jsonEvent{Time: time.Now().UTC().Format(time.RFC3339Nano), Event: "note", Message: text})
}

func (p *jsonProgress) close() {}
