package report

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/internal/chart"
	"github.com/layerprof/layerprof/internal/sweep"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// driftView is what is known of the device's state over the run.
type driftView struct {
	Summary []fact
	// Sweeps compares shapes that two files of the bundle hold.
	Sweeps []fact
	Note   string
	Points int // anchors in the plot
}

// driftData is a run's anchors of one shape at one degree.
type driftData struct {
	Bundle  int    `json:"bundle"`
	TP      int    `json:"tp"`
	Shape   string `json:"shape"`
	Minutes values `json:"minutes"` // since the journal's first anchor
	Percent values `json:"percent"` // of the anchors' median
	US      values `json:"us"`
	// ClockMHz and TemperatureC are the device's, null where not read.
	ClockMHz     values `json:"clock_mhz"`
	TemperatureC values `json:"temperature_c"`
}

// drift shows the anchors of bundle i, from the journal where there is one.
func (p *page) drift(i int, s Source, b *perfio.Bundle) error {
	v := p.Bundles[i]
	d := &v.Drift
	text := func(path ...string) string {
		return chart.Printable(b.Meta.Text(append([]string{"telemetry"}, path...)...))
	}
	for _, one := range []struct {
		name string
		path []string
	}{
		{"anchors", []string{"anchors", "count"}}, {"fastest, of the undisturbed device", []string{"anchors", "fastest"}},
		{"slowest", []string{"anchors", "slowest"}}, {"noise of an anchor", []string{"anchors", "noise"}},
		{"threshold", []string{"anchors", "threshold"}}, {"shots corrected", []string{"anchors", "corrected_shots"}},
		{"blocks measured again", []string{"anchors", "blocks_redone"}},
	} {
		if value := text(one.path...); value != "" {
			d.Summary = append(d.Summary, fact{one.name, value})
		}
	}
	const ofRange = " (least, median, most)"
	for _, one := range []struct{ name, what, unit string }{
		{"sm_clock_mhz", "SM clock" + ofRange, "MHz"}, {"memory_clock_mhz", "memory clock" + ofRange, "MHz"}, {"temperature_c", "temperature" + ofRange, "°C"},
		{"power_mw", "power" + ofRange, "mW"}, {"throttle_reasons", "throttled by", ""},
	} {
		if n := b.Meta.Get("telemetry", one.name); n != nil && len(n.Content) > 0 {
			var parts []string
			for _, c := range n.Content[:min(len(n.Content), 8)] {
				parts = append(parts, chart.Printable(c.Value))
			}
			d.Summary = append(d.Summary, fact{one.what, strings.TrimSpace(strings.Join(parts, ", ") + " " + one.unit)})
		}
	}
	for t := range b.TPs {
		tp := &b.TPs[t]
		if r := sweep.Compare(b.Meta, tp.Attention, tp.Skew); r.Shared > 0 {
			f := float64(r.Factor)
			d.Sweeps = append(d.Sweeps, fact{fmt.Sprintf("tp%d", tp.Degree),
				fmt.Sprintf("pure %+.2f%%, mixed %+.2f%% (%d shapes; skew.csv holds %d runs' sums)", 100*(r.Pure/f-1), 100*(r.Mixed/f-1), r.Shared, r.Factor)})
		}
	}
	if s.Folder == "" {
		d.Note = "A packed bundle holds no journal: only what meta.yaml says of the anchors is known."
		return nil
	}
	entries, err := profile.TailJournal(s.Folder).Next(profile.EntryAnchor)
	if errors.Is(err, fs.ErrNotExist) {
		d.Note = "The bundle's folder holds no journal: only what meta.yaml says of the anchors is known."
		return nil
	}
	if err != nil {
		return err
	}
	p.addAnchors(i, entries)
	return nil
}

func (p *page) addAnchors(i int, entries []profile.JournalEntry) {
	type key struct {
		tp           int
		scope, shape string
	}
	var order []key
	by := map[key][]profile.JournalEntry{}
	for _, e := range entries {
		if e.LevelUS <= 0 || e.Time.IsZero() {
			continue
		}
		k := key{e.TP, e.Scope, e.Shape}
		if by[k] == nil {
			order = append(order, k)
		}
		by[k] = append(by[k], e)
	}
	if len(order) == 0 {
		p.Bundles[i].Drift.Note = "The journal holds no anchors."
		return
	}
	first := by[order[0]][0].Time
	for _, k := range order {
		if by[k][0].Time.Before(first) {
			first = by[k][0].Time
		}
	}
	for _, k := range order[:min(len(order), maxFigures)] {
		list := by[k]
		levels := make([]float64, len(list))
		for j, e := range list {
			levels[j] = e.LevelUS
		}
		slices.Sort(levels)
		middle := levels[len(levels)/2]
		slices.SortStableFunc(list, func(a, b profile.JournalEntry) int { return a.Time.Compare(b.Time) })
		d := driftData{Bundle: i, TP: k.tp, Shape: chart.Printable(k.shape)}
		for _, e := range thin(list, maxPoints, nil) {
			d.Minutes = append(d.Minutes, digits(e.Time.Sub(first).Minutes(), 6))
			d.Percent = append(d.Percent, digits(100*(e.LevelUS/middle-1), 4))
			d.US = append(d.US, short(e.LevelUS))
			n := len(d.US)
			d.ClockMHz, d.TemperatureC = append(d.ClockMHz, absent(1)...), append(d.TemperatureC, absent(1)...)
			if t := e.Telemetry; t != nil && t.SMClockMHz > 0 {
				d.ClockMHz[n-1] = float64(t.SMClockMHz)
			}
			if t := e.Telemetry; t != nil && t.TemperatureC > 0 {
				d.TemperatureC[n-1] = float64(t.TemperatureC)
			}
		}
		p.Bundles[i].Drift.Points += len(d.US)
		p.Data.Drifts = append(p.Data.Drifts, d)
	}
}
