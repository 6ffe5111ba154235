package watch

import (
	"fmt"
	"strings"
	"time"
)

// barWidth is the width of a progress bar.
const barWidth = 24

// Line is the status in one line, for logs.
func (s *Status) Line() string {
	done, total := 0, 0
	at := ""
	for _, p := range s.Parts {
		done, total = done+p.Done, total+p.Total
		if p.Done < p.Total && at == "" || p.Done > 0 && p.Done < p.Total {
			at = fmt.Sprintf("tp%d %s %d/%d", p.TP, p.Category, p.Done, p.Total)
		}
	}
	parts := []string{s.stateText()}
	if at != "" {
		parts = append(parts, at)
	}
	parts = append(parts, fmt.Sprintf("all %d/%d", done, total), s.paceText())
	if spread := s.spreadText(); spread != "" {
		parts = append(parts, "spread "+spread)
	}
	parts = append(parts, s.anchorText(), s.failureText())
	return strings.Join(compact(parts), "; ")
}

// Lines is the status as a small page.
func (s *Status) Lines() []string {
	lines := []string{s.Dir, "  " + s.stateText()}
	for _, p := range s.Parts {
		share := 0.0
		if p.Total > 0 {
			share = float64(p.Done) / float64(p.Total)
		}
		full := int(share * barWidth)
		lines = append(lines, fmt.Sprintf("  tp%-2d %-12s [%s%s] %6d/%-6d %3.0f%%", p.TP, p.Category,
			strings.Repeat("=", full), strings.Repeat("-", barWidth-full), p.Done, p.Total, 100*share))
	}
	for _, tp := range s.NotPlanned {
		lines = append(lines, fmt.Sprintf("  tp%-2d planned once its engine runs", tp))
	}
	for _, row := range []struct{ name, text string }{
		{"shots", s.paceText()}, {"at", s.At}, {"spread", s.spreadText()}, {"anchors", s.anchorText()},
		{"failures", s.failureText()}, {"device", s.deviceText()},
	} {
		if row.text != "" {
			lines = append(lines, fmt.Sprintf("  %-9s %s", row.name, row.text))
		}
	}
	if s.LastFailure != "" {
		first, _, _ := strings.Cut(s.LastFailure, "\n")
		lines = append(lines, "  last failure: "+first)
	}
	return lines
}

func compact(parts []string) []string {
	out := parts[:0]
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return out
}

func (s *Status) stateText() string {
	elapsed := duration(s.ElapsedS)
	switch s.State {
	case Running:
		if s.Holders > 1 {
			return fmt.Sprintf("running for %s (%d shards at work)", elapsed, s.Holders)
		}
		return fmt.Sprintf("running for %s (process %d)", elapsed, s.PID)
	case Ended:
		return fmt.Sprintf("ended after %s: %s", elapsed, s.Outcome)
	case Unknown:
		return fmt.Sprintf("held by process %d on %s, which has not been seen to live yet", s.PID, s.Host)
	}
	return fmt.Sprintf("no run is at work; the last one went without a word after %s", elapsed)
}

func duration(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

func (s *Status) paceText() string {
	if s.ShotsPerSecond == 0 {
		return ""
	}
	text := fmt.Sprintf("%.1f shots/s", s.ShotsPerSecond)
	if s.SecondsLeft != nil {
		text += fmt.Sprintf(", %s left", duration(*s.SecondsLeft))
		if len(s.NotPlanned) > 0 {
			text += " of what is planned"
		}
	}
	return text
}

func (s *Status) spreadText() string {
	if s.SpreadP50 == nil {
		return ""
	}
	return fmt.Sprintf("%.2f%%, p90 %.2f%%", *s.SpreadP50, *s.SpreadP90)
}

func (s *Status) anchorText() string {
	a := s.Anchors
	if a.Count == 0 {
		return ""
	}
	text := fmt.Sprintf("%d anchors, now %+.2f%%, from %+.2f%% to %+.2f%%", a.Count, a.Last, a.Fastest, a.Slowest)
	if s.Redone > 0 {
		text += fmt.Sprintf(", %d blocks measured again", s.Redone)
	}
	return text
}

func (s *Status) failureText() string {
	text := fmt.Sprintf("%d failed", s.Failed)
	if s.Infeasible > 0 {
		text += fmt.Sprintf(", %d infeasible", s.Infeasible)
	}
	if s.Boots > 1 {
		text += fmt.Sprintf(", %d boots", s.Boots)
	}
	if s.Damaged > 0 {
		text += fmt.Sprintf(", %d damaged lines", s.Damaged)
	}
	return text
}

func (s *Status) deviceText() string {
	if s.Device == nil {
		return ""
	}
	var parts []string
	add := func(format string, v int, scaled float64) {
		if v > 0 {
			parts = append(parts, fmt.Sprintf(format, scaled))
		}
	}
	d := s.Device
	add("%.0f MHz", d.SMClockMHz, float64(d.SMClockMHz))
	add("%.0f °C", d.TemperatureC, float64(d.TemperatureC))
	add("%.0f W", d.PowerMW, float64(d.PowerMW)/1000)
	if len(d.ThrottleReasons) > 0 {
		parts = append(parts, "throttled: "+strings.Join(d.ThrottleReasons, ", "))
	}
	return strings.Join(parts, ", ")
}
