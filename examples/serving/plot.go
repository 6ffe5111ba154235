package main

import (
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"os"

	"github.com/layerprof/layerprof/examples/serving/sim"
)

// plotTimes draws the share of requests whose time is at most x, simulated and
// measured, for each figure.
func plotTimes(name string, requests []*sim.Request) (err error) {
	var plots []*plot.Plot
	for _, f := range figures() {
		p := plot.New()
		p.Title.Text = f.name
		p.X.Label.Text = "seconds"
		p.Y.Label.Text = "share of requests"
		for i, side := range []struct {
			name string
			of   func(*sim.Request) (float64, bool)
		}{{"simulated", f.simulated}, {"measured", f.measured}} {
			values := collect(requests, side.of)
			if len(values) == 0 {
				continue
			}
			points := make(plotter.XYs, len(values))
			for k, v := range values {
				points[k].X, points[k].Y = v, float64(k+1)/float64(len(values))
			}
			line, err := plotter.NewLine(points)
			if err != nil {
				return err
			}
			line.Color, line.Dashes = plotutil.Color(i), plotutil.Dashes(i)
			p.Add(line)
			p.Legend.Add(side.name, line)
		}
		plots = append(plots, p)
	}
	canvas := vgimg.New(vg.Length(len(plots))*10*vg.Centimeter, 9*vg.Centimeter)
	tiles := draw.Tiles{Rows: 1, Cols: len(plots), PadX: vg.Centimeter / 2}
	for i, c := range plot.Align([][]*plot.Plot{plots}, tiles, draw.New(canvas))[0] {
		plots[i].Draw(c)
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() {
		if e := file.Close(); err == nil {
			err = e
		}
	}()
	_, err = vgimg.PngCanvas{Canvas: canvas}.WriteTo(file)
	return err
}
