package chart_test

import (
	"bytes"
	"image/color"
	"image/png"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/layerprof/layerprof/internal/bundletest"
	"github.com/layerprof/layerprof/internal/chart"
	"github.com/layerprof/layerprof/perfio"
)

type drawing interface {
	WriteText(w io.Writer) error
	WritePNG(w io.Writer) error
}

func drawings(t *testing.T) map[string]drawing {
	t.Helper()
	b := bundletest.Bundle()
	tp := &b.TPs[0]
	dense, err1 := chart.Dense(b, tp, "qkv_proj")
	sequence, err2 := chart.PerSequence(b, tp, "sampler")
	attention, err3 := chart.Attention(b, tp, 16, 0)
	moe, err4 := chart.MoE(b, tp)
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return map[string]drawing{"dense": dense, "per_sequence": sequence, "attention": attention, "moe": moe}
}

// colours counts the colours of a picture.
func colours(t *testing.T, d drawing) (n, width, height int) {
	t.Helper()
	var out bytes.Buffer
	if err := d.WritePNG(&out); err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(&out)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[color.Color]bool{}
	box := picture.Bounds()
	for x := box.Min.X; x < box.Max.X; x++ {
		for y := box.Min.Y; y < box.Max.Y; y++ {
			seen[picture.At(x, y)] = true
		}
	}
	return len(seen), box.Dx(), box.Dy()
}

func TestDrawings(t *testing.T) {
	for name, d := range drawings(t) {
		if n, width, height := colours(t, d); n < 10 || width < 500 || height < 300 {
			t.Errorf("%s: %d colours, %d x %d pixels", name, n, width, height)
		}
		var text bytes.Buffer
		if err := d.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text.String(), "SYNTHETIC") || !strings.Contains(text.String(), "[synthetic]") {
			t.Errorf("%s does not say where it comes from: %s", name, &text)
		}
	}
}

func TestHeatMapText(t *testing.T) {
	h := &chart.HeatMap{Title: "t", XLabel: "kv_decode", YLabel: "n_decode", ZLabel: "us", Columns: []int{16, 32}, Rows: []int{1, 8},
		Z: [][]float64{{1, math.NaN()}, {10, 123456}}}
	var out bytes.Buffer
	if err := h.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	want := "t\nus; rows n_decode, columns kv_decode\n" +
		"                16       32\n" +
		"        1       ·1        -\n" +
		"        8      ·10 █1.23e+05\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	if _, width, _ := colours(t, h); width == 0 {
		t.Error("no picture")
	}
}

func TestCurveText(t *testing.T) {
	c := &chart.Curve{Title: "t", XLabel: "tokens", YLabel: "us", X: []float64{0, 63}, Y: []float64{8, 16}}
	var out bytes.Buffer
	if err := c.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for i, line := range lines[2:18] {
		bars := []rune(line)[11:]
		if first := bars[0] == '█'; first != (i >= 8) || bars[63] != '█' || bars[30] != ' ' {
			t.Errorf("line %d: %q", i, line)
		}
	}
	if !strings.HasPrefix(lines[2], "       16 ┤") || !strings.HasSuffix(lines[19], "63  tokens") {
		t.Errorf("labels: %q, %q", lines[2], lines[19])
	}
}

// Names from files reach neither terminal nor picture with control characters.
func TestHostileNames(t *testing.T) {
	c := &chart.Curve{Title: "a\x1b[31m</script>\u202eb\n", XLabel: "x\x00", YLabel: "y\a", X: []float64{1, 2}, Y: []float64{1, 2}}
	var out bytes.Buffer
	if err := c.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x00\a\u202e") || !strings.HasPrefix(out.String(), "a?[31m</script>?b?\n") {
		t.Errorf("%q", &out)
	}
	if n, _, _ := colours(t, c); n < 2 {
		t.Error("no picture")
	}
}

func TestNothingToDraw(t *testing.T) {
	b := bundletest.Bundle()
	tp := &b.TPs[1] // without moe
	_, err1 := chart.Dense(b, tp, "absent")
	_, err2 := chart.Attention(b, tp, 17, 0)
	_, err3 := chart.MoE(b, tp)
	_, err4 := chart.PerSequence(b, tp, "qkv_proj")
	for _, err := range []error{err1, err2, err3, err4, (&chart.Curve{}).WriteText(io.Discard), (&chart.Curve{}).WritePNG(io.Discard),
		(&chart.HeatMap{}).WriteText(io.Discard), (&chart.HeatMap{}).WritePNG(io.Discard)} {
		if err == nil || !strings.Contains(err.Error(), "found no") {
			t.Errorf("got %v", err)
		}
	}
}

// Rows stand for their steps: eight steps of 10 us and one of 100 have a median
// of 10, though each is a row. What is absent, of another mode or beside a prefill
// does not count.
func TestDecodeSteps(t *testing.T) {
	nan := math.NaN()
	row := func(mode string, depth, n, steps int, us, forward float64) perfio.StepRow {
		return perfio.StepRow{Mode: mode, Layers: depth, NDecode: n, Steps: steps, StepUS: us, DeviceForwardUS: forward}
	}
	rows := []perfio.StepRow{
		row(perfio.ModeGraphSync, 4, 2, 1, 100, nan), row(perfio.ModeGraphSync, 4, 2, 8, 10, 7), row(perfio.ModeGraphSync, 4, 1, 1, nan, 6),
		row(perfio.ModeGraphSync, 2, 2, 9, 1, 1), row(perfio.ModeEagerSync, 4, 2, 9, 1, 1), row(perfio.ModeGraphSync, 4, 2, 9, 1, 1),
	}
	rows[5].NPrefill = 1
	got := chart.DecodeSteps(rows, perfio.ModeGraphSync, 4)
	if len(got) != 2 || got[0].NDecode != 1 || !math.IsNaN(got[0].US) || got[0].ForwardUS != 6 {
		t.Fatalf("got %+v", got)
	}
	if s := got[1]; s.NDecode != 2 || s.US != 10 || s.P10 != 10 || s.P90 != 100 || s.ForwardUS != 7 || s.Steps != 9 || !slices.Equal(s.Rows, []int{0, 1}) {
		t.Errorf("got %+v", s)
	}
}
