package chart

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// Size of a curve in characters, without the labels.
const (
	textWidth  = 64
	textHeight = 16
)

// WriteText draws the curve from 0 up; each column is a bar up to the largest of
// its points.
func (c *Curve) WriteText(w io.Writer) error {
	_, high := limits(c.Y)
	left, right := limits(c.X)
	if len(c.X) == 0 || !(high > 0) {
		return fmt.Errorf("chart: %s: found no points to draw", Printable(c.Title))
	}
	columns := make([]float64, textWidth)
	for i := range columns {
		columns[i] = math.NaN()
	}
	for i, x := range c.X {
		at := 0
		if right > left {
			at = int(math.Round((x - left) / (right - left) * (textWidth - 1)))
		}
		if math.IsNaN(columns[at]) || c.Y[i] > columns[at] {
			columns[at] = c.Y[i]
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n%s\n", Printable(c.Title), Printable(c.YLabel))
	eighths := []rune(" ▁▂▃▄▅▆▇█")
	for line := textHeight; line > 0; line-- {
		label := ""
		if line == textHeight || line == textHeight/2 {
			label = fmt.Sprintf("%.4g", high*float64(line)/textHeight)
		}
		fmt.Fprintf(&out, "%9s ┤", label)
		for _, v := range columns {
			full := v / high * textHeight // of lines
			part := math.Round(8 * min(1, max(0, full-float64(line-1))))
			if math.IsNaN(v) {
				part = 0
			}
			out.WriteRune(eighths[int(part)])
		}
		out.WriteByte('\n')
	}
	fmt.Fprintf(&out, "%9s └%s\n", "0", strings.Repeat("─", textWidth))
	first, last := fmt.Sprintf("%g", left), fmt.Sprintf("%g", right)
	gap := max(1, textWidth-len(first)-len(last))
	fmt.Fprintf(&out, "%11s%s%s%s  %s\n", "", first, strings.Repeat(" ", gap), last, Printable(c.XLabel))
	_, err := io.WriteString(w, out.String())
	return err
}

// WriteText draws the map as a table: values with a shade on a logarithmic
// scale.
func (h *HeatMap) WriteText(w io.Writer) error {
	low, high := limits(h.Z...)
	if !(low > 0) || low > high {
		return fmt.Errorf("chart: %s: found no points to draw", Printable(h.Title))
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n%s; rows %s, columns %s\n", Printable(h.Title), Printable(h.ZLabel), Printable(h.YLabel), Printable(h.XLabel))
	const width = 9
	cell := func(text string) {
		out.WriteString(strings.Repeat(" ", max(1, width-utf8.RuneCountInString(text))) + text)
	}
	cell("")
	for _, v := range h.Columns {
		cell(fmt.Sprint(v))
	}
	out.WriteByte('\n')
	shades := []string{"·", "░", "▒", "▓", "█"}
	for i, row := range h.Z {
		cell(fmt.Sprint(h.Rows[i]))
		for _, v := range row {
			if math.IsNaN(v) {
				cell("-")
				continue
			}
			shade := 0
			if high > low {
				shade = int(math.Log(v/low) / math.Log(high/low) * 4.999)
			}
			cell(fmt.Sprintf("%s%s", shades[shade], short(v)))
		}
		out.WriteByte('\n')
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// short is a number in at most seven characters.
func short(v float64) string {
	switch {
	case v >= 1e5:
		return fmt.Sprintf("%.3g", v)
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.4g", v)
}
