package chart

import (
	"fmt"
	"io"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/palette/moreland"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// Size of a picture.
const (
	pngWidth  = 8 * vg.Inch
	pngHeight = 5 * vg.Inch
	// maxLabelled is how many columns leave room for the values.
	maxLabelled = 24
)

// WritePNG draws the curve with its points, from 0 up.
func (c *Curve) WritePNG(w io.Writer) error {
	if len(c.X) == 0 {
		return fmt.Errorf("chart: %s: found no points to draw", Printable(c.Title))
	}
	points := make(plotter.XYs, len(c.X))
	for i := range c.X {
		points[i].X, points[i].Y = c.X[i], c.Y[i]
	}
	line, marks, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	marks.Radius = vg.Points(1.5)
	p := plot.New()
	p.Title.Padding = vg.Points(6)
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = Printable(c.Title), Printable(c.XLabel), Printable(c.YLabel)
	p.Add(plotter.NewGrid(), line, marks)
	p.Y.Min = 0
	return write(w, p)
}

// WritePNG draws the map; colour is the logarithm of the value, which stands in
// its cell.
func (h *HeatMap) WritePNG(w io.Writer) error {
	low, high := limits(h.Z...)
	if !(low > 0) || low > high {
		return fmt.Errorf("chart: %s: found no points to draw", Printable(h.Title))
	}
	colors := moreland.Kindlmann() // rises in lightness: reads without colour
	colors.SetMin(0)
	colors.SetMax(1)
	cells := plotter.NewHeatMap(logGrid{h}, colors.Palette(255))
	if high <= low {
		cells.Max = cells.Min + 1
	}
	p := plot.New()
	p.Title.Padding = vg.Points(6)
	p.Title.Text, p.X.Label.Text = Printable(h.Title)+", "+Printable(h.ZLabel), Printable(h.XLabel)
	p.Y.Label.Text = Printable(h.YLabel)
	p.X.Tick.Marker, p.Y.Tick.Marker = ticks(h.Columns), ticks(h.Rows)
	labels := plotter.XYLabels{}
	var dark []bool
	for r, row := range h.Z {
		for c, v := range row {
			if !math.IsNaN(v) && len(h.Columns) <= maxLabelled {
				labels.XYs = append(labels.XYs, plotter.XY{X: float64(c), Y: float64(r)})
				labels.Labels = append(labels.Labels, short(v))
				dark = append(dark, high > low && math.Log(v/low)/math.Log(high/low) < 0.6)
			}
		}
	}
	text, err := plotter.NewLabels(labels)
	if err != nil {
		return err
	}
	light, err := colors.At(0.999)
	if err != nil {
		return err
	}
	for i := range text.TextStyle {
		style := &text.TextStyle[i]
		style.XAlign, style.YAlign = -0.5, -0.5
		style.Font.Size = vg.Points(7)
		if dark[i] {
			style.Color = light
		}
	}
	p.Add(cells, text)
	return write(w, p)
}

func ticks(values []int) plot.ConstantTicks {
	var out plot.ConstantTicks
	for i, v := range values {
		out = append(out, plot.Tick{Value: float64(i), Label: fmt.Sprint(v)})
	}
	return out
}

func write(w io.Writer, p *plot.Plot) error {
	to, err := p.WriterTo(pngWidth, pngHeight, "png")
	if err != nil {
		return err
	}
	_, err = to.WriteTo(w)
	return err
}

// logGrid is the map as gonum wants it: cells at whole numbers.
type logGrid struct{ h *HeatMap }

func (g logGrid) Dims() (columns, rows int) { return len(g.h.Columns), len(g.h.Rows) }
func (g logGrid) Z(c, r int) float64        { return math.Log(g.h.Z[r][c]) }
func (g logGrid) X(c int) float64           { return float64(c) }
func (g logGrid) Y(r int) float64           { return float64(r) }
