package stepmodel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s: got %g, want %g within %g", what, got, want, tolerance)
	}
}

// A host's times are a line with a long upper tail.
func TestFitLine(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 8))
	var points []linePoint
	for range 400 {
		requests, admitted := float64(1+rnd.IntN(200)), float64(rnd.IntN(4))
		us := 900 + 7*requests + 120*admitted + 10*rnd.NormFloat64()
		if rnd.IntN(5) == 0 {
			us += 4000 * rnd.Float64() // a pause
		}
		points = append(points, linePoint{requests, admitted, us})
	}
	l := fitLine(points)
	near(t, "base", l.Base, 900, 15)
	near(t, "per request", l.PerRequest, 7, 0.15)
	near(t, "per admitted", l.PerAdmitted, 120, 10)
	near(t, "at", l.At(100, 2), 900+700+240, 25)
}

func TestFitLineWithoutSpread(t *testing.T) {
	l := fitLine([]linePoint{{8, 0, 500}, {8, 0, 510}, {8, 0, 490}})
	near(t, "base", l.Base, 500, 6)
	if l.PerRequest != 0 || l.PerAdmitted != 0 {
		t.Errorf("%+v: points of one size cannot say what another costs", l)
	}
	// Larger batches that took less are noise: no request takes less than nothing.
	l = fitLine([]linePoint{{1, 0, 520}, {10, 0, 500}, {20, 0, 480}})
	if l.PerRequest != 0 {
		t.Errorf("%+v", l)
	}
	if (fitLine(nil) != Line{}) {
		t.Error("no points gave a line")
	}
}

// made are rows by known terms: graphs are launched in 90 us, other forwards in
// 5,000, and the device takes ratio * kernels + offset.
func made(async bool) (rows []Row) {
	for n := 1; n <= 128; n *= 2 {
		for _, kernels := range []float64{2000, 4000, 9000} {
			for _, class := range []string{"FULL", "NONE"} {
				r := Row{Class: class, Requests: n, Layers: 32, KernelsUS: kernels, HeadUS: 300, BeforeUS: 1000 + 4*float64(n), LaunchUS: 90}
				if class == "NONE" {
					r.LaunchUS = 5000
					if kernels == 4000 { // others go on with a prompt
						r.Admitted = 1
					}
				}
				r.ForwardUS = max(0.98*kernels+60, r.LaunchUS+40)
				after := 700 + 6*float64(n)
				r.StepUS = r.BeforeUS + r.ForwardUS + r.HeadUS + after
				if async {
					r.SubmitUS, r.FinishUS = 200, after-200
					r.WaitUS, r.TailUS = 20, r.HeadUS+50
					host := r.BeforeUS + r.LaunchUS + after
					r.StepUS = max(host, r.WaitUS+r.ForwardUS+r.TailUS)
				}
				rows = append(rows, r)
			}
		}
	}
	return rows
}

func TestFitSync(t *testing.T) {
	rows := made(false)
	terms := FitSync(rows)
	if !terms.Parts || terms.Layers != 32 || terms.Rows != len(rows) {
		t.Errorf("%+v", terms)
	}
	near(t, "before", terms.Before.At(50, 0), 1200, 1)
	near(t, "after and head", terms.After.At(50, 0), 1300, 1)
	full, none := terms.Classes["FULL"], terms.Classes["NONE"]
	near(t, "launch of a graph", full.LaunchUS, 90, 1)
	near(t, "ratio", full.Ratio, 0.98, 0.002)
	near(t, "offset", full.OffsetUS, 60, 6)
	near(t, "launch without", none.LaunchUS+none.LagUS, 5040, 1)
	for _, r := range rows {
		near(t, "step of "+r.Class, terms.SyncStepUS(r)/r.StepUS, 1, 0.01)
	}
	if full.Sigma > 0.01 || full.PauseUS > 10 {
		t.Errorf("exact rows leave %+v", full)
	}
}

// Rows that hold whole steps only are split by how steps grow.
func TestFitWhole(t *testing.T) {
	rows := made(false)
	for i := range rows {
		r := &rows[i]
		r.BeforeUS, r.LaunchUS, r.ForwardUS = 0, 0, 0
	}
	terms := FitSync(rows)
	if terms.Parts {
		t.Error("whole steps were taken for parts")
	}
	var errs []float64
	for _, r := range rows {
		errs = append(errs, math.Abs(terms.SyncStepUS(r)/r.StepUS-1))
	}
	if p50, p90 := 100*quantile(errs, 0.5), 100*quantile(errs, 0.9); p50 > 2 || p90 > 6 {
		t.Errorf("off by %.1f%%, %.1f%%", p50, p90)
	}
}

func TestFitAsync(t *testing.T) {
	rows := made(true)
	terms := FitAsync(rows)
	near(t, "submit", terms.Submit.At(30, 0), 200, 1)
	near(t, "finish", terms.Finish.At(50, 0), 800, 1)
	near(t, "tail", terms.TailUS, 50, 1)
	near(t, "wait", terms.WaitUS, 20, 1)
	for _, r := range rows {
		near(t, "step of "+r.Class, terms.AsyncStepUS(r)/r.StepUS, 1, 0.01)
	}
	if terms := FitAsync(append(rows, Row{Class: "FULL", Requests: 1, Layers: 32, StepUS: 5000})); terms.Parts {
		t.Error("a row without parts was taken")
	}
	// What synchronous rows let expect of the asynchronous mode: the pace is the
	// longer chain's.
	ahead := FitSync(made(false)).Ahead(made(false))
	slow := Row{Class: "FULL", Requests: 8, Layers: 32, KernelsUS: 9000, HeadUS: 300}
	near(t, "ahead, device", ahead.AsyncStepUS(slow), 0.98*9000+60+300, 60)
	fast := Row{Class: "FULL", Requests: 128, Layers: 32, KernelsUS: 500, HeadUS: 300}
	near(t, "ahead, host", ahead.AsyncStepUS(fast), 1000+4*128+90+700+6*128, 60)
}

// Pauses are rare and long: they do not move the typical step, and the mean
// holds them.
func TestPauses(t *testing.T) {
	rows := made(false)
	for range 3 {
		rows = append(rows, rows...)
	}
	paused := 0.0
	for i := range rows {
		if i%16 == 3 && rows[i].Class == "NONE" {
			rows[i].BeforeUS += 3000
			rows[i].StepUS += 3000
			paused += 3000
		}
	}
	terms := FitSync(rows)
	near(t, "before", terms.Before.At(50, 0), 1200, 10)
	count := 0.0
	for _, r := range rows {
		if r.Class == "NONE" {
			count++
		}
	}
	if paused == 0 {
		t.Fatal("nobody paused")
	}
	near(t, "pause", terms.Classes["NONE"].PauseUS, paused/count, 0.1*paused/count)
	near(t, "no pause", terms.Classes["FULL"].PauseUS, 0, 10)
	// A step that waits for compilation is no pause, of whichever scheduling.
	ahead := terms.Ahead(rows)
	i := slices.IndexFunc(rows, func(r Row) bool { return r.Class == "FULL" })
	compiled := rows[i]
	compiled.StepUS *= 50
	with := append(slices.Clone(rows), compiled)
	near(t, "compiled", FitSync(with).Classes["FULL"].PauseUS, terms.Classes["FULL"].PauseUS, 1)
	near(t, "compiled, ahead", FitSync(with).Ahead(with).Classes["FULL"].PauseUS, ahead.Classes["FULL"].PauseUS, 1)
}

func TestAtDepth(t *testing.T) {
	at := func(layers int) Terms {
		return Terms{Layers: layers, Before: Line{Base: 1000}, Classes: map[string]Class{"NONE": {LaunchUS: 300 + 150*float64(layers), OffsetUS: 50, Ratio: 0.98}}}
	}
	if got, measured := AtDepth([]Terms{at(8), at(16)}, 16); !measured || got.Classes["NONE"].LaunchUS != 2700 {
		t.Errorf("%+v, %v", got, measured)
	}
	got, measured := AtDepth([]Terms{at(16), at(8)}, 32)
	if measured || got.Layers != 32 {
		t.Errorf("%+v, %v", got, measured)
	}
	near(t, "launch of two depths", got.Classes["NONE"].LaunchUS, 300+150*32, 1e-6)
	near(t, "offset of two depths", got.Classes["NONE"].OffsetUS, 50, 1e-6)
	got, _ = AtDepth([]Terms{at(16)}, 32)
	near(t, "launch of one depth", got.Classes["NONE"].LaunchUS, 2*2700, 1e-6)
}
