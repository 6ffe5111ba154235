package report

import (
	"math"
	"slices"
	"testing"
)

func TestThin(t *testing.T) {
	list := make([]int, 1000)
	for i := range list {
		list[i] = i
	}
	for _, most := range []int{2, 3, 7, 100, 999} {
		got := thin(list, most, nil)
		if len(got) != most || got[0] != 0 || got[most-1] != 999 || !slices.IsSorted(got) {
			t.Errorf("%d of 1000: %d, from %d to %d", most, len(got), got[0], got[len(got)-1])
		}
		widest := 0
		for i := 1; i < len(got); i++ {
			widest = max(widest, got[i]-got[i-1])
		}
		if widest > 999/(most-1)+1 {
			t.Errorf("%d of 1000: a gap of %d", most, widest)
		}
	}
	if got := thin(list, 10, func(v int) bool { return v == 501 || v == 998 }); len(got) != 12 || !slices.Contains(got, 501) || !slices.Contains(got, 998) {
		t.Errorf("what is to be kept: %v", got)
	}
	if got := thin(list[:5], 10, nil); len(got) != 5 {
		t.Errorf("a short list: %v", got)
	}
}

func TestDigits(t *testing.T) {
	for _, test := range []struct {
		in   float64
		n    int
		want float64
	}{{123.456789, 6, 123.457}, {0.000123456, 3, 0.000123}, {-99.96, 3, -100}, {1e12, 3, 1e12}, {0, 3, 0}, {5e-324, 6, 5e-324}} {
		if got := digits(test.in, test.n); got != test.want {
			t.Errorf("%g to %d digits: %g, want %g", test.in, test.n, got, test.want)
		}
	}
}

// Every error is in a bin, those beyond the range in the first and the last.
func TestHistogram(t *testing.T) {
	var signed []float64
	for i := -500; i <= 500; i++ {
		signed = append(signed, float64(i)/100)
	}
	signed = append(signed, 400, -90)
	var d judgedData
	d.histogram(signed)
	sum := 0
	for _, n := range d.Histogram {
		sum += n
	}
	if sum != len(signed) || len(d.Histogram) != histogramBins || d.Histogram[0] < 1 || d.Histogram[histogramBins-1] < 1 {
		t.Errorf("%d of %d errors: %+v", sum, len(signed), d)
	}
	if reach := -d.BinLow; reach < 4.9 || reach > 12 || math.Abs(d.BinLow+d.BinWidth*histogramBins/2) > 1e-9 {
		t.Errorf("the bins begin at %g, %g wide", d.BinLow, d.BinWidth)
	}
	// Errors of zero, and none at all.
	d = judgedData{}
	d.histogram([]float64{0, 0, 0})
	if d.Histogram[histogramBins/2] != 3 || !(d.BinWidth > 0) {
		t.Errorf("no error: %+v", d)
	}
	d = judgedData{}
	d.histogram(nil)
}
