package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/layerprof/layerprof/profile"
)

// lineRange are the lines of a file from First to Last. Rows do not know their
// lines: empty ones do not count, here as in what perfcheck lint prints.
type lineRange struct{ First, Last int }

// parseLines reads lines and ranges of them, as in 155,160-170.
func parseLines(text string) ([]lineRange, error) {
	var out []lineRange
	for _, part := range strings.Split(text, ",") {
		from, to, ranged := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if err == nil && ranged {
			last, err = strconv.Atoi(to)
		}
		if err != nil || first < 2 || last < first {
			return nil, usageErrorf("lines: found %q, expected lines from 2 on, as in 155,160-170", part)
		}
		out = append(out, lineRange{first, last})
	}
	return out, nil
}

// keepLines leaves of the source only the rows on the lines of --lines, which
// are those of one table of one degree.
func (s *sweep) keepLines() error {
	ranges, err := parseLines(s.flags.Lines)
	if err != nil {
		return err
	}
	if len(s.flags.Only) != 1 || len(s.flags.TPs) != 1 {
		return usageErrorf("lines: found --only %v and --tp %v, expected one table and one degree, whose lines they are", s.flags.Only, s.flags.TPs)
	}
	category, degree := profile.Category(s.flags.Only[0]), s.flags.TPs[0]
	tp := s.Source.TP(degree)
	if tp == nil {
		return usageErrorf("lines: %s has no tp%d", s.Source.Dir, degree)
	}
	rows := 0
	switch category {
	case profile.Dense:
		tp.Dense, rows = onLines(tp.Dense, ranges)
	case profile.PerSequence:
		tp.PerSequence, rows = onLines(tp.PerSequence, ranges)
	case profile.Attention:
		tp.Attention, rows = onLines(tp.Attention, ranges)
	case profile.MoE:
		tp.MoE, rows = onLines(tp.MoE, ranges)
	case profile.Skew:
		tp.Skew, rows = onLines(tp.Skew, ranges)
	default:
		return usageErrorf("lines: found --only %s, expected dense, per_sequence, attention, moe or skew", category)
	}
	for _, r := range ranges {
		if r.Last > rows+1 {
			return usageErrorf("lines: found line %d, tp%d/%s.csv of %s has %d, empty ones not counted", r.Last, degree, category, s.Source.Dir, rows+1)
		}
	}
	return nil
}

// onLines are the rows on the lines, and how many there were.
func onLines[R any](rows []R, ranges []lineRange) ([]R, int) {
	var out []R
	for i, row := range rows {
		if slices.ContainsFunc(ranges, func(r lineRange) bool { return i+2 >= r.First && i+2 <= r.Last }) {
			out = append(out, row)
		}
	}
	return out, len(rows)
}
