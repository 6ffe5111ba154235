package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/internal/chart"
	"github.com/layerprof/layerprof/internal/lint"
	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
)

// curve is one layer of dense.csv, per_sequence.csv or collectives.csv, of all
// bundles.
type curve struct {
	ID     string   `json:"id"`
	Layer  string   `json:"layer"`
	Axis   string   `json:"axis"`
	Series []series `json:"series"`
}

// series is a layer's times at one degree of one bundle.
type series struct {
	Bundle int       `json:"bundle"`
	TP     int       `json:"tp"`
	X      int       `json:"x"` // of data.Axes
	Y      []float64 `json:"y"` // us
	// RoofX and RoofY are what the roofline driver computes.
	RoofX *int      `json:"roof_x,omitempty"`
	RoofY []float64 `json:"roof_y,omitempty"`
	Marks []int     `json:"marks,omitempty"` // positions that lint names
}

type point struct {
	x int
	y float64
}

// addCurves shows the layers of bundle i.
func (p *page) addCurves(i int, b *perfio.Bundle, found []lint.Finding) {
	v := p.Bundles[i]
	roof, why := newRoofline(b)
	if why != "" {
		v.leaveOut("the roofline: %s", why)
	}
	marks := map[tidy.Key]bool{}
	for _, f := range found {
		for _, k := range f.Keys {
			k.Bytes = 0 // goes by the tokens
			marks[k] = true
		}
	}
	for t := range b.TPs {
		tp := &b.TPs[t]
		// A curve's name is the layer, of collectives.csv the collective too.
		type name struct{ layer, collective string }
		dense := func(j int) (name, point) { r := &tp.Dense[j]; return name{r.Layer, ""}, point{r.Tokens, r.TimeUS} }
		sequence := func(j int) (name, point) {
			r := &tp.PerSequence[j]
			return name{r.Layer, ""}, point{r.Sequences, r.TimeUS}
		}
		collective := func(j int) (name, point) {
			r := &tp.Collectives[j]
			return name{r.Layer, r.Collective}, point{r.Tokens, r.TimeUS}
		}
		for _, table := range []struct {
			name string
			rows int
			row  func(int) (name, point)
		}{{"dense", len(tp.Dense), dense}, {"per_sequence", len(tp.PerSequence), sequence}, {"collectives", len(tp.Collectives), collective}} {
			var order []name
			points := map[name][]point{}
			for j := range table.rows {
				of, at := table.row(j)
				if points[of] == nil {
					order = append(order, of)
				}
				points[of] = append(points[of], at)
			}
			for _, of := range order {
				p.addCurve(i, tidy.Key{TP: tp.Degree, Table: table.name, Layer: of.layer, Collective: of.collective}, points[of], roof, marks)
			}
		}
		if roof != nil && roof.problems[tp.Degree] != nil {
			v.leaveOut("the roofline of tp%d: %v", tp.Degree, roof.problems[tp.Degree])
		}
	}
}

func (p *page) addCurve(i int, key tidy.Key, points []point, roof *roofline, marks map[tidy.Key]bool) {
	v := p.Bundles[i]
	anchor := lint.PlotID(key)
	_, id, _ := strings.Cut(anchor, "-") // whatever the degree
	c := p.curves[id]
	if c == nil {
		if len(p.Data.Curves) >= maxFigures {
			v.leaveOut("curves of layers beyond the first %d", maxFigures)
			return
		}
		c = &curve{ID: id, Layer: strings.TrimSpace(chart.Printable(key.Layer) + " " + chart.Printable(key.Collective)), Axis: "tokens"}
		if key.Table == "per_sequence" {
			c.Axis = "sequences"
		}
		p.curves[id] = c
		p.Data.Curves = append(p.Data.Curves, c)
		p.Tables = append(p.Tables, figure{ID: id, Title: c.Layer, Axis: c.Axis, Table: key.Table})
	}
	f := &p.Tables[slices.IndexFunc(p.Tables, func(f figure) bool { return f.ID == id })]
	if !slices.Contains(f.Anchors, anchor) {
		f.Anchors = append(f.Anchors, anchor)
	}
	slices.SortFunc(points, func(a, b point) int { return a.x - b.x })
	marked := func(x int) bool {
		k := key
		if key.Table == "per_sequence" {
			k.Sequences = x
		} else {
			k.Tokens = x
		}
		return marks[k]
	}
	if len(points) > maxPoints {
		v.leaveOut("points of %s beyond %d, evenly chosen among its %d", c.Layer, maxPoints, len(points))
		points = thin(points, maxPoints, func(q point) bool { return marked(q.x) })
	}
	if !p.spend(i, len(points)) {
		v.leaveOut("curves and grids beyond %d values", maxValues)
		return
	}
	s := series{Bundle: i, TP: key.TP}
	var xs []int
	for j, q := range points {
		xs = append(xs, q.x)
		s.Y = append(s.Y, short(q.y))
		if marked(q.x) {
			s.Marks = append(s.Marks, j)
		}
	}
	s.X = p.axis(xs)
	if at := thin(xs, maxRoofline, nil); roof != nil && key.Table != "collectives" {
		if ys := roof.curve(key, at); ys != nil {
			x := p.axis(at)
			s.RoofX, s.RoofY = &x, ys
		}
	}
	c.Series = append(c.Series, s)
}

// axis is the index of a list in the pool of axes, which many curves share.
func (p *page) axis(xs []int) int {
	key := strings.Trim(fmt.Sprint(xs), "[]")
	n, ok := p.pool[key]
	if !ok {
		n = len(p.Data.Axes)
		p.pool[key] = n
		p.Data.Axes = append(p.Data.Axes, xs)
	}
	return n
}

// thin keeps most of a list's elements, evenly chosen with both ends, and those
// that keep wants.
func thin[T any](list []T, most int, keep func(T) bool) []T {
	if len(list) <= most {
		return list
	}
	out := make([]T, 0, most)
	next := 0
	for j, v := range list {
		// The k-th of the chosen stands at k*(n-1)/(most-1).
		if j == next*(len(list)-1)/(most-1) {
			next++
			out = append(out, v)
		} else if keep != nil && keep(v) {
			out = append(out, v)
		}
	}
	return out
}

// short rounds to six significant digits, as the tables have them.
func short(v float64) float64 { return digits(v, 6) }

// digits rounds to n significant digits.
func digits(v float64, n int) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	scale := math.Pow(10, float64(n-1)-math.Floor(math.Log10(math.Abs(v))))
	if scale == 0 || math.IsInf(scale, 0) {
		return v
	}
	return math.Round(v*scale) / scale
}
