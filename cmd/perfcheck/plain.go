package main

import (
	"io"
	"strings"

	"github.com/layerprof/layerprof/internal/chart"
)

// plain writes text for people: names that come from files lose what would
// steer a terminal.
type plain struct{ w io.Writer }

func (p plain) Write(text []byte) (int, error) {
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		lines[i] = chart.Printable(line)
	}
	if _, err := io.WriteString(p.w, strings.Join(lines, "\n")); err != nil {
		return 0, err
	}
	return len(text), nil
}
