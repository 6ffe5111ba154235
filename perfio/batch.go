package perfio

import (
	"encoding/json"
	"fmt"
)

// Request is one request of a batch: the tokens that the step computes for it
// and the tokens of KV history that it already has. A decode computes one
// token. In JSON it is the pair [new_tokens, kv_history].
type Request struct {
	NewTokens int
	KVHistory int
}

// MarshalJSON writes the pair.
func (r Request) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "[%d,%d]", r.NewTokens, r.KVHistory), nil
}

// UnmarshalJSON reads the pair and refuses anything else.
func (r *Request) UnmarshalJSON(data []byte) error {
	var pair []int
	if err := json.Unmarshal(data, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return fmt.Errorf("requests: found %d numbers, expected [new_tokens, kv_history]", len(pair))
	}
	r.NewTokens, r.KVHistory = pair[0], pair[1]
	return nil
}

// BatchRow is one line of a shots file and of batches.jsonl: one batch, and
// what was measured of it, if anything.
type BatchRow struct {
	// Requests in the order in which the engine executed them.
	Requests []Request `json:"requests"`
	// MeasuredUS is the time per call by layer name, in microseconds.
	MeasuredUS map[string]float64 `json:"measured_us,omitempty"`
	// KernelsUS splits attention by kernel: flash, combine, cache_write.
	KernelsUS map[string]float64 `json:"kernels_us,omitempty"`
	// CollectivesUS is what the ranks of a tensor-parallel engine exchange at the
	// end of a call of the layer, which MeasuredUS does not have.
	CollectivesUS map[string]float64 `json:"collectives_us,omitempty"`
	// SpreadUS is the median absolute deviation over the samples, by layer.
	SpreadUS map[string]float64 `json:"spread_us,omitempty"`
	// N is the number of samples behind each time.
	N int `json:"n,omitempty"`
	// StepUS is the wall time of the whole step.
	StepUS float64 `json:"step_us,omitempty"`
	// Kind is decode, decode_skew, prefill, mixed, mixed_skew or multi; see
	// KindOf for what an absent one means.
	Kind string `json:"kind,omitempty"`
}
