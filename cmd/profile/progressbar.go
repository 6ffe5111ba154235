package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/layerprof/layerprof/profile"
)

// barProgress draws a bar for each category.
type barProgress struct {
	mu    sync.Mutex
	bars  *mpb.Progress
	parts parts
	bar   map[*part]*mpb.Bar
}

func newBarProgress(w io.Writer) *barProgress {
	return &barProgress{
		bars: mpb.New(mpb.WithOutput(w), mpb.WithWidth(28), mpb.WithAutoRefresh()),
		bar:  make(map[*part]*mpb.Bar),
	}
}

func (p *barProgress) observe(e profile.Event) {
	if text := eventText(e); text != "" {
		p.note(text)
	}
	p.mu.Lock()
	at := p.parts.update(e)
	var done, total int
	if at != nil {
		done, total = at.done, at.total
	}
	bar := p.bar[at]
	p.mu.Unlock()
	if at == nil {
		return
	}
	if bar == nil {
		// The bars' own goroutine asks for the texts: no lock is held here.
		bar = p.bars.AddBar(int64(max(total, 1)),
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return p.left(at) }, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return p.right(at) })))
		p.mu.Lock()
		p.bar[at] = bar
		p.mu.Unlock()
	}
	bar.SetCurrent(int64(done))
}

func (p *barProgress) left(at *part) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%s %d/%d", at.title(), at.done, at.total)
}

func (p *barProgress) right(at *part) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := ""
	if at.done < at.total && at.rate() > 0 {
		text = fmt.Sprintf(" %.1f/s, %s left", at.rate(), at.left())
	} else if at.rate() > 0 {
		text = fmt.Sprintf(" %.1f/s", at.rate())
	}
	if at == p.parts.current && at.shape != "" && at.done < at.total {
		text += ", " + shortShape(at.shape)
	}
	return text + at.troubles()
}

// shortShape keeps a random batch's shape to a line.
func shortShape(shape string) string {
	const most = 32
	if len(shape) <= most {
		return shape
	}
	return shape[:most-3] + "..."
}

func (p *barProgress) note(text string) {
	_, _ = p.bars.Write([]byte(strings.TrimRight(text, "\n") + "\n"))
}

func (p *barProgress) close() {
	p.mu.Lock()
	bars := make([]*mpb.Bar, 0, len(p.bar))
	for _, b := range p.bar {
		bars = append(bars, b)
	}
	p.mu.Unlock()
	for _, b := range bars {
		b.Abort(false)
	}
	p.bars.Wait()
}
