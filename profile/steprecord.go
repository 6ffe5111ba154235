package profile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/layerprof/layerprof/perfio"
)

// The host's marks of a step, readings of one clock in microseconds: indices
// into StepRecord.HostMarksUS.
const (
	MarkSchedule  = iota // the scheduler is called
	MarkScheduled        // and has returned
	MarkExecute          // the runner is called to execute the step
	MarkForward          // the model's forward is called
	MarkForwarded        // and has returned
	MarkExecuted         // execute has returned
	MarkSampled          // the sampler has returned
	MarkUpdate           // the scheduler's update is called with the step's output
	MarkUpdated          // and has returned
	MarkReturned         // the engine's step that brought the output has returned to its caller

	hostMarks
)

// The device's marks of a step: indices into StepRecord.DeviceMarksUS.
const (
	DeviceExecute = iota // execute was called
	DeviceForward        // the forward begins
	DeviceForwarded
	DeviceSampled

	deviceMarks
)

// HostMarks are a step's marks; NaN (null in JSON) is one that there is not.
type HostMarks [hostMarks]float64

// MarshalJSON writes the list.
func (m HostMarks) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, us := range m {
		if i > 0 {
			b = append(b, ',')
		}
		switch {
		case math.IsNaN(us):
			b = append(b, "null"...)
		case math.IsInf(us, 0):
			return nil, fmt.Errorf("host_marks_us: found %v", us)
		default:
			b = strconv.AppendFloat(b, us, 'f', -1, 64)
		}
	}
	return append(b, ']'), nil
}

// UnmarshalJSON reads a list of just as many numbers and nulls.
func (m *HostMarks) UnmarshalJSON(data []byte) error {
	var list []*float64
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	if len(list) != len(m) {
		return fmt.Errorf("host_marks_us: found %d readings, expected %d", len(list), len(m))
	}
	for i, us := range list {
		m[i] = math.NaN()
		if us != nil {
			m[i] = *us
		}
	}
	return nil
}

// StepRecord is one step of an engine that serves requests.
type StepRecord struct {
	Requests     []perfio.Request `json:"requests"` // in executed order
	Admitted     int              `json:"admitted"` // of these, those in their first step
	Finished     int              `json:"finished"` // requests that the step before was the last one of
	PaddedTokens int              `json:"padded_tokens"`
	Graph        string           `json:"graph"` // perfio.GraphFull, …, or ""
	HostMarksUS  HostMarks        `json:"host_marks_us"`
	// DeviceMarksUS is nil where the device has no clock of its own.
	DeviceMarksUS []float64 `json:"device_marks_us"`
}

// Check says what is wrong with a record, by field.
func (s *StepRecord) Check() error {
	if len(s.Requests) == 0 {
		return fmt.Errorf("requests: found none")
	}
	for _, q := range s.Requests {
		if q.NewTokens < 1 || q.KVHistory < 0 || q.NewTokens > perfio.MaxKey || q.KVHistory > perfio.MaxKey {
			return fmt.Errorf("requests: found [%d,%d], expected at least one new token and no history below 0", q.NewTokens, q.KVHistory)
		}
	}
	if s.Admitted < 0 || s.Admitted > len(s.Requests) || s.Finished < 0 || s.PaddedTokens < 0 || s.PaddedTokens > perfio.MaxKey {
		return fmt.Errorf("admitted, finished, padded_tokens: found %d, %d and %d with %d requests", s.Admitted, s.Finished, s.PaddedTokens, len(s.Requests))
	}
	switch s.Graph {
	case "", perfio.GraphFull, perfio.GraphPiecewise, perfio.GraphNone:
	default:
		return fmt.Errorf("graph: found %q, expected FULL, PIECEWISE, NONE or nothing", s.Graph)
	}
	if m := s.HostMarksUS; m == (HostMarks{}) || math.IsNaN(m[MarkSchedule]) || math.IsNaN(m[MarkScheduled]) {
		return fmt.Errorf("host_marks_us: found no time of the scheduler's call, or of its return")
	}
	if err := ascending("host_marks_us", s.HostMarksUS[:]); err != nil {
		return err
	}
	if n := len(s.DeviceMarksUS); n != 0 && n != deviceMarks {
		return fmt.Errorf("device_marks_us: found %d readings, expected %d or null", n, deviceMarks)
	}
	for _, us := range s.DeviceMarksUS {
		if math.IsNaN(us) {
			return fmt.Errorf("device_marks_us: found a reading that is none")
		}
	}
	return ascending("device_marks_us", s.DeviceMarksUS)
}

// CheckSteps says what is wrong with a run's records: each by itself, and their
// order, which is that of the scheduler's calls.
func CheckSteps(steps []StepRecord) error {
	last := math.Inf(-1)
	for i := range steps {
		if err := steps[i].Check(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		begun := steps[i].HostMarksUS[MarkSchedule]
		if begun < last {
			return fmt.Errorf("step %d: host_marks_us: found a scheduler call at %v behind one at %v", i, begun, last)
		}
		last = begun
	}
	return nil
}

// ascending: a clock does not go back. NaN is passed over.
func ascending(field string, marks []float64) error {
	last := math.Inf(-1)
	for i, us := range marks {
		if math.IsNaN(us) {
			continue
		}
		if us < last || math.IsInf(us, 0) || math.Abs(us) > perfio.MaxTimeUS {
			return fmt.Errorf("%s: found %v behind %v at place %d, expected an ascending clock", field, us, last, i)
		}
		last = us
	}
	return nil
}

// follows says whether the step has the requests of the one before, each a
// decode that goes on from where it stood.
func (s *StepRecord) follows(before *StepRecord) bool {
	if len(s.Requests) != len(before.Requests) {
		return false
	}
	for i, q := range s.Requests {
		if p := before.Requests[i]; q.NewTokens != 1 || q.KVHistory != p.KVHistory+p.NewTokens {
			return false
		}
	}
	return true
}

// CompactSteps are step records whose JSON leaves out the requests of a step that
// goes on with those of the one before: a journal holds thousands of such.
type CompactSteps []StepRecord

// MarshalJSON writes the list.
func (c CompactSteps) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('[')
	for i := range c {
		s := c[i]
		if i > 0 {
			b.WriteByte(',')
			if s.follows(&c[i-1]) {
				s.Requests = nil
			}
		}
		text, err := json.Marshal(&s)
		if err != nil {
			return nil, err
		}
		b.Write(text)
	}
	b.WriteByte(']')
	return b.Bytes(), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *CompactSteps) UnmarshalJSON(data []byte) error {
	var list []StepRecord
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	for i := range list {
		if list[i].Requests != nil {
			continue
		}
		if i == 0 {
			return fmt.Errorf("steps: the first one has no requests")
		}
		list[i].Requests = make([]perfio.Request, len(list[i-1].Requests))
		for j, p := range list[i-1].Requests {
			list[i].Requests[j] = perfio.Request{NewTokens: 1, KVHistory: p.KVHistory + p.NewTokens}
		}
	}
	*c = list
	return nil
}
