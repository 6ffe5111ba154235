package attnmodel

import (
	"math"
	"testing"
)

func TestQuickLog(t *testing.T) {
	for x := 1.0; x < 1e7; x = math.Nextafter(x*1.0137, 1e9) {
		if got, want := quickLog(x), math.Log(x); math.Abs(got-want) > 5e-7 {
			t.Errorf("log(%v) = %v, want %v", x, got, want)
		}
	}
	if quickLog(0) != 0 {
		t.Errorf("log(0) = %v, want 0", quickLog(0))
	}
}
