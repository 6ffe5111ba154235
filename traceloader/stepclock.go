package traceloader

// StepClock follows one engine step by step. With asynchronous scheduling the
// host submits a step while the device is at the one before, so that a step's
// start, its work on the device and its results belong to different times; the
// clock keeps both chains. Growing decodes are answered by a memo. Use one clock
// for each engine; it is not safe for concurrent use.
type StepClock struct {
	steps Steps
	memo  *DecodeMemo
	time  StepTime

	readyNS int64 // when the host may begin the next step
	// In asynchronous scheduling: the end of the device's last step, and the step
	// whose results the host has not taken yet.
	deviceEndNS int64
	flying      bool
	flyingDone  int64 // on the device
	flyingLen   int   // requests of it
}

// StepSpan is when a step that was submitted begins and what its submission
// brings to an end. Times are on the caller's clock.
type StepSpan struct {
	StartNS int64 // the host begins the step
	// ReadyNS is when the host may begin the next step, and when the results of
	// the Done oldest steps that have none yet are with the caller.
	ReadyNS int64
	Done    int
}

// NewStepClock makes a clock for an engine that is idle at 0.
func NewStepClock(s Steps) *StepClock {
	c := &StepClock{steps: s}
	for i := range s.walk.block {
		if a := s.walk.block[i].attention; a.rules != nil {
			c.memo = NewDecodeMemo(a)
		}
	}
	return c
}

// Submit runs a step that begins at earliestNS, or when the host is ready for it
// if that is later. False where a layer has no answer; the clock is then as it
// was.
func (c *StepClock) Submit(b Batch, earliestNS int64) (StepSpan, bool) {
	t := &c.time
	if !c.steps.time(&b, t, c.memo) {
		return StepSpan{}, false
	}
	start := max(earliestNS, c.readyNS)
	if !c.steps.async() {
		c.readyNS = start + t.TotalNS
		return StepSpan{StartNS: start, ReadyNS: c.readyNS, Done: 1}, true
	}
	s := c.steps.terms
	launched := start + t.BeforeNS + t.LaunchNS
	submitted := launched + ns(s.Submit.At(b.Sequences, b.Admitted()))
	// ForwardNS may be the launch's; the kernels alone follow the step before.
	begun := max(c.deviceEndNS+ns(s.WaitUS), start+t.BeforeNS)
	forward := max(begun+t.deviceForwardNS, start+t.BeforeNS+t.launchForwardNS)
	deviceEnd := forward + t.AfterNS + t.PauseNS
	span := StepSpan{StartNS: start, ReadyNS: submitted}
	if c.flying {
		span.ReadyNS = max(submitted, c.flyingDone) + ns(s.Finish.At(c.flyingLen, 0))
		span.Done = 1
	}
	c.deviceEndNS, c.readyNS = deviceEnd, span.ReadyNS
	c.flying, c.flyingDone, c.flyingLen = true, deviceEnd, b.Sequences
	return span, true
}

// Drain takes the results that are still out, when there is nothing to submit.
// Its StartNS is 0.
func (c *StepClock) Drain() StepSpan {
	span := StepSpan{ReadyNS: c.readyNS}
	if c.flying {
		span.ReadyNS = max(c.readyNS, c.flyingDone) + ns(c.steps.terms.Finish.At(c.flyingLen, 0))
		span.Done = 1
		c.flying, c.readyNS = false, span.ReadyNS
	}
	return span
}

// Last is the step that was submitted last. It is overwritten by the next.
func (c *StepClock) Last() *StepTime { return &c.time }
