package profile

import "testing"

// Validation batches are measured for themselves, also where a shot of another
// category has their shape.
func TestValidationSharesNothing(t *testing.T) {
	d := newFakeDevice()
	opts := testOptions(t, d, t.TempDir())
	opts.AnchorEvery = -1
	opts.PlanOptions.ShareRepeats = true
	opts.Plan = func(tp int, _ *Engine) (TPPlan, error) {
		shot := denseShot(16)
		other := Shot{Category: Validation, Groups: shot.Groups}
		third := Shot{Category: Batches, Groups: shot.Groups}
		return TPPlan{TP: tp, Categories: []CategoryPlan{
			{Category: Dense, Shots: []Shot{shot}}, {Category: Batches, Shots: []Shot{third}}, {Category: Validation, Shots: []Shot{other}},
		}}, nil
	}
	report := mustRun(t, opts)
	if report.Measured != 2 {
		t.Errorf("%d shots measured, expected one for dense and batches and one for validation", report.Measured)
	}
	if again := mustRun(t, opts); again.Measured != 0 || again.Reused != 2 {
		t.Errorf("a second run: %+v", again)
	}
}
