package stepmodel

// Row is one measured step, or the median of some that are alike, with what the
// tables say of its layers. Times are in microseconds; 0 is not known, but for
// StepUS, which is always there.
type Row struct {
	Class    string // of graphs: FULL, PIECEWISE, NONE or ""
	Requests int
	Admitted int // requests that are new in this step
	Layers   int // decoder blocks of the model that ran

	StepUS    float64 // from the step's start to the next one's
	BeforeUS  float64 // from the step's start to the forward's call
	LaunchUS  float64 // the forward's call
	SubmitUS  float64 // from the forward's return to the sampler's, without waiting; asynchronous scheduling
	FinishUS  float64 // the host's work on the step's results; asynchronous scheduling
	WaitUS    float64 // on the device, before the forward
	ForwardUS float64 // on the device
	TailUS    float64 // on the device, after the forward: logits and sampling
	DeviceUS  float64 // from the end of the step before to this one's, on the device

	KernelsUS float64 // prologue and blocks, by the tables
	HeadUS    float64 // head, by the tables
}
