// Package chart draws measured latencies, a curve or a heat map, as text for a
// terminal and as PNG.
package chart

import (
	"math"
	"strings"
	"unicode"
)

// Curve is a line of measured points, ascending in X.
type Curve struct {
	Title, XLabel, YLabel string
	X, Y                  []float64
}

// HeatMap holds Z[row][column]; NaN is not measured. Columns and rows are the
// axes' values, ascending, drawn at equal distances.
type HeatMap struct {
	Title, XLabel, YLabel, ZLabel string
	Columns, Rows                 []int
	Z                             [][]float64
}

// Printable replaces what a terminal or a label must not get from a file's
// names: control characters and marks that turn the direction of text.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '?'
		}
		return r
	}, s)
}

// limits of the values, NaN left out; low above high where there are none.
func limits(lists ...[]float64) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, list := range lists {
		for _, v := range list {
			if !math.IsNaN(v) {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	return low, high
}
