package stepmodel

import (
	"maps"
	"math"
	"slices"
)

// Terms are what a mode's steps take beside their layers, at one depth.
type Terms struct {
	Layers int
	// Before, and in synchronous scheduling After, are the host's alone: the
	// device has nothing to do meanwhile. After begins where the forward ends.
	Before Line
	After  Line
	// Submit is from the forward's return to the sampler's, Finish the host's
	// work on a step's results; asynchronous scheduling only.
	Submit Line
	Finish Line
	// TailUS is what the device does after the forward beyond the head's
	// kernels, WaitUS what passes before it; asynchronous scheduling only.
	TailUS float64
	WaitUS float64
	// Classes by kind of graph.
	Classes map[string]Class
	// Parts is false where the rows held whole steps only, so that host and
	// device were told apart by how steps grow.
	Parts bool
	Rows  int
}

// Class is how the device's forward of one kind of graph relates to the sum of
// its kernels.
type Class struct {
	// LaunchUS is the host's time to launch the forward; a forward never takes
	// less than LaunchUS + LagUS.
	LaunchUS float64
	LagUS    float64
	// OffsetUS + Ratio * kernels is the forward where the device is the slower.
	OffsetUS float64
	Ratio    float64
	// Sigma is one standard error of a step, relative.
	Sigma float64
	// PauseUS is what the mean step takes more than the typical one: a host's
	// pauses are rare and long. In asynchronous scheduling only what of them is
	// longer than the device has work for.
	PauseUS float64
	Rows    int
}

// ForwardUS is the forward's time for a sum of kernels as far as the device's
// work goes, and as far as the host's launching goes; the longer one counts.
func (c Class) ForwardUS(kernelsUS float64) (device, launch float64) {
	return c.OffsetUS + c.Ratio*kernelsUS, c.LaunchUS + c.LagUS
}

const (
	deviceBoundShare = 0.75 // launching takes less than this share of the forward: the device sets the pace
	longestPause     = 5    // steps: what takes longer counts as this
	oneOff           = 10   // steps: what takes longer is compiling or loading, and no pause of a steady server
	leastRows        = 6    // for a class to have a line of its own
)

// FitSync fits rows of synchronous scheduling, all of one depth. A row may lack
// its step's time, or its parts: what a row knows is used.
func FitSync(rows []Row) Terms {
	t := Terms{Classes: make(map[string]Class), Rows: len(rows)}
	if len(rows) == 0 {
		return t
	}
	t.Layers = rows[0].Layers
	var whole, forwards []Row
	var before, after []linePoint
	for _, r := range rows {
		switch {
		case r.ForwardUS > 0 && r.StepUS > 0 && r.BeforeUS > 0:
			before = append(before, point(r, r.BeforeUS))
			after = append(after, point(r, r.StepUS-r.BeforeUS-r.ForwardUS))
		case r.StepUS > 0:
			whole = append(whole, r)
		}
		if r.ForwardUS > 0 {
			forwards = append(forwards, r)
		}
	}
	t.fitClasses(forwards)
	t.Before, t.After = fitLine(before), fitLine(after)
	if t.Parts = len(before) > 0; !t.Parts {
		t.fitWhole(whole)
	}
	t.sigmas(rows, t.SyncStepUS)
	return t
}

// FitAsync fits rows of asynchronous scheduling, all of one depth. Rows must
// have parts.
func FitAsync(rows []Row) Terms {
	t := Terms{Classes: make(map[string]Class), Rows: len(rows)}
	if len(rows) == 0 || !haveParts(rows) {
		return t
	}
	t.Layers, t.Parts = rows[0].Layers, true
	var before, submit, finish []linePoint
	var wait, tail []float64
	for _, r := range rows {
		before = append(before, point(r, r.BeforeUS))
		submit = append(submit, point(r, r.SubmitUS))
		finish = append(finish, point(r, r.FinishUS))
		if r.TailUS > 0 {
			tail = append(tail, r.TailUS-r.HeadUS)
			wait = append(wait, r.WaitUS)
		}
	}
	t.Before, t.Submit, t.Finish = fitLine(before), fitLine(submit), fitLine(finish)
	// The shortest waits are those of a device that had work to do.
	t.TailUS, t.WaitUS = median(tail), quantile(wait, 0.25)
	t.fitClasses(rows)
	t.sigmas(rows, t.AsyncStepUS)
	t.pauses(rows, func(r Row) float64 { return r.BeforeUS + r.LaunchUS + r.SubmitUS + r.FinishUS })
	return t
}

func point(r Row, us float64) linePoint {
	return linePoint{float64(r.Requests), float64(r.Admitted), us}
}

// haveParts: the forward and what comes before it were measured in each row.
func haveParts(rows []Row) bool {
	return !slices.ContainsFunc(rows, func(r Row) bool { return !(r.BeforeUS > 0) || !(r.ForwardUS > 0) })
}

func (t *Terms) fitClasses(rows []Row) {
	byClass := make(map[string][]Row)
	for _, r := range rows {
		byClass[r.Class] = append(byClass[r.Class], r)
	}
	for name, rows := range byClass {
		var launch, lag []float64
		var bound []Row
		for _, r := range rows {
			launch = append(launch, r.LaunchUS)
			if r.LaunchUS < deviceBoundShare*r.ForwardUS {
				bound = append(bound, r)
			} else {
				lag = append(lag, r.ForwardUS-r.LaunchUS)
			}
		}
		c := Class{LaunchUS: median(launch), LagUS: max(0, median(lag)), Rows: len(rows)}
		c.OffsetUS, c.Ratio = fitRatio(bound)
		t.Classes[name] = c
	}
}

// fitRatio fits forward = offset + ratio * kernels on relative error.
func fitRatio(rows []Row) (offset, ratio float64) {
	if len(rows) < leastRows {
		return 0, 1
	}
	smallest, largest := math.Inf(1), 0.0
	for _, r := range rows {
		smallest, largest = min(smallest, r.KernelsUS), max(largest, r.KernelsUS)
	}
	if largest < 1.3*smallest { // too alike for a line
		var ratios []float64
		for _, r := range rows {
			ratios = append(ratios, r.ForwardUS/r.KernelsUS)
		}
		return 0, median(ratios)
	}
	// Divided by kernels the line's two numbers change places.
	var points []linePoint
	for _, r := range rows {
		points = append(points, linePoint{requests: 1e3 / r.KernelsUS, us: 1e3 * r.ForwardUS / r.KernelsUS})
	}
	l := fitLine(points)
	return l.PerRequest, l.Base / 1e3
}

// SyncStepUS is a step in synchronous scheduling.
func (t *Terms) SyncStepUS(r Row) float64 {
	forward := max(t.Classes[r.Class].ForwardUS(r.KernelsUS))
	return t.Before.At(r.Requests, r.Admitted) + forward + t.After.At(r.Requests, r.Admitted)
}

// AsyncStepUS is a step among others like it in asynchronous scheduling.
func (t *Terms) AsyncStepUS(r Row) float64 {
	c := t.Classes[r.Class]
	forward := max(c.ForwardUS(r.KernelsUS))
	return max(t.hostUS(r), t.WaitUS+forward+t.TailUS+r.HeadUS)
}

// sigmas: of the residuals' middle two thirds, so that a host's rare pauses do
// not count as error of all steps.
func (t *Terms) sigmas(rows []Row, predict func(Row) float64) {
	errors := make(map[string][]float64)
	excess, steady := make(map[string]float64), make(map[string]float64)
	for _, r := range rows {
		measured := r.StepUS
		if r.DeviceUS > 0 {
			measured = r.DeviceUS
		}
		if measured <= 0 {
			continue
		}
		predicted := predict(r)
		errors[r.Class] = append(errors[r.Class], math.Abs(predicted/measured-1))
		if measured <= oneOff*predicted {
			excess[r.Class] += min(measured, longestPause*predicted) - predicted
			steady[r.Class]++
		}
	}
	for name, e := range errors {
		c := t.Classes[name]
		c.Sigma = quantile(e, 0.68)
		c.PauseUS = max(0, excess[name]/max(1, steady[name]))
		t.Classes[name] = c
	}
}

// fitWhole fits what is not the forward where only whole steps are known: one
// line, in After. A class without forwards of its own takes kernels as they are,
// and as its launch the one under which that line fits best.
func (t *Terms) fitWhole(rows []Row) {
	if len(rows) == 0 {
		return
	}
	unknown := make(map[string]bool)
	for _, r := range rows {
		c, ok := t.Classes[r.Class]
		if !ok || unknown[r.Class] {
			unknown[r.Class] = true
			c.Ratio = 1
		}
		c.Rows++
		t.Classes[r.Class] = c
	}
	fit := func() (Line, float64) {
		var points []linePoint
		for _, r := range rows {
			points = append(points, point(r, r.StepUS-max(t.Classes[r.Class].ForwardUS(r.KernelsUS))))
		}
		line := fitLine(points)
		cost := 0.0
		for i, r := range rows {
			cost += math.Abs(points[i].us-line.At(r.Requests, r.Admitted)) / r.StepUS
		}
		return line, cost
	}
	line, best := fit()
	for range 3 {
		for _, name := range slices.Sorted(maps.Keys(unknown)) {
			var candidates []float64
			for _, r := range rows {
				if r.Class == name {
					candidates = append(candidates, r.StepUS-line.At(r.Requests, r.Admitted))
				}
			}
			for _, q := range []float64{0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8} {
				old := t.Classes[name]
				c := old
				c.LaunchUS = max(0, quantile(candidates, q))
				t.Classes[name] = c
				if l, cost := fit(); cost < best {
					line, best = l, cost
				} else {
					t.Classes[name] = old
				}
			}
		}
	}
	t.After = line
}

// Ahead is what asynchronous scheduling makes of terms of synchronous
// scheduling, fitted on the rows given, where no rows of its own are known: the
// host's time beside the launch is the same but for the device's head, half of it
// before the forward. (Which half matters only where the host is the slower.)
func (t Terms) Ahead(rows []Row) Terms {
	sync := t
	host := t.After
	host.Base = max(0, host.Base-rows[0].HeadUS) + t.Before.Base
	host.PerRequest += t.Before.PerRequest
	host.PerAdmitted += t.Before.PerAdmitted
	half := Line{host.Base / 2, host.PerRequest / 2, host.PerAdmitted / 2}
	t.Before, t.Submit, t.Finish, t.After = half, Line{}, half, Line{}
	t.Classes = maps.Clone(t.Classes)
	t.pauses(rows, func(r Row) float64 {
		if r.StepUS <= 0 {
			return 0
		}
		// All that a step takes more than the typical one is taken for the host's.
		return t.hostUS(r) + r.StepUS - sync.SyncStepUS(r)
	})
	return t
}

// hostUS is all that the host does for a step in asynchronous scheduling.
func (t *Terms) hostUS(r Row) float64 {
	return t.Before.At(r.Requests, r.Admitted) + t.Classes[r.Class].LaunchUS + t.Submit.At(r.Requests, r.Admitted) + t.Finish.At(r.Requests, r.Admitted)
}

// pauses sets the classes' PauseUS from the host's measured times: what of each
// is beyond the step's typical time, which is the device's where that is longer.
func (t *Terms) pauses(rows []Row, hostUS func(Row) float64) {
	sum, count := make(map[string]float64), make(map[string]float64)
	for _, r := range rows {
		host := hostUS(r)
		if host <= 0 {
			continue
		}
		step := t.AsyncStepUS(r)
		if host > oneOff*step {
			continue
		}
		sum[r.Class] += max(0, min(host, longestPause*step)-step)
		count[r.Class]++
	}
	for name, c := range t.Classes {
		c.PauseUS = 0
		if count[name] > 0 {
			c.PauseUS = sum[name] / count[name]
		}
		t.Classes[name] = c
	}
}
