package sim

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
	"strconv"

	"github.com/layerprof/layerprof/perfio"
)

// Request is one request of the list, and what became of it.
type Request struct {
	ID           string
	ArrivalNS    int64
	InputTokens  int
	OutputTokens int
	// Prefix names a prompt beginning of PrefixTokens tokens that requests of
	// the same name share; it matters with prefix caching only.
	Prefix       string
	PrefixTokens int

	FirstTokenNS int64
	DoneNS       int64
	// MeasuredTTFT and MeasuredLatency are seconds of a real run, 0 where the
	// list has none.
	MeasuredTTFT    float64
	MeasuredLatency float64

	generated int
}

// TTFT is the time to the first token, in seconds from the arrival.
func (r *Request) TTFT() float64 { return float64(r.FirstTokenNS-r.ArrivalNS) / 1e9 }

// Latency is the time to the last token, in seconds from the arrival.
func (r *Request) Latency() float64 { return float64(r.DoneNS-r.ArrivalNS) / 1e9 }

// TPOT is the mean time per token after the first, in seconds; not defined
// (false) for a request of one token.
func (r *Request) TPOT() (float64, bool) {
	return perToken(r.TTFT(), r.Latency(), r.OutputTokens)
}

// MeasuredTPOT is the same of the real run.
func (r *Request) MeasuredTPOT() (float64, bool) {
	if r.MeasuredLatency <= 0 || r.MeasuredTTFT <= 0 {
		return 0, false
	}
	return perToken(r.MeasuredTTFT, r.MeasuredLatency, r.OutputTokens)
}

func perToken(ttft, latency float64, tokens int) (float64, bool) {
	if tokens < 2 {
		return 0, false
	}
	return (latency - ttft) / float64(tokens-1), true
}

// maxArrivalNS keeps sums of times, 30 years and more, within 64 bits.
const maxArrivalNS = 1e18

// ReadRequests reads a CSV with the columns request, input_tokens,
// output_tokens, arrival_ns and, where they are known, measured_ttft_s,
// measured_latency_s, prefix and prefix_tokens; the result is in order of arrival.
// No row, and an ID that stands twice, is an error.
func ReadRequests(file string, in io.Reader) ([]*Request, error) {
	r := csv.NewReader(in)
	header, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("%s:1: header: %w", file, err)
	}
	columns := map[string]int{}
	for i, name := range header {
		columns[name] = i
	}
	for _, name := range []string{"request", "input_tokens", "output_tokens", "arrival_ns"} {
		if _, ok := columns[name]; !ok {
			return nil, fmt.Errorf("%s:1: %s: found no such column", file, name)
		}
	}
	var out []*Request
	lines := map[string]int{} // of the IDs
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		line, _ := r.FieldPos(0)
		var problems []error
		number := func(name string, least, most int64) int64 {
			i, ok := columns[name]
			if !ok || fields[i] == "" && name == "prefix_tokens" {
				return 0
			}
			v, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil || v < least || v > most {
				problems = append(problems, fmt.Errorf("%s:%d: %s: found %q, expected a whole number from %d to %d", file, line, name, fields[i], least, most))
			}
			return v
		}
		seconds := func(name string) float64 {
			i, ok := columns[name]
			if !ok || fields[i] == "" {
				return 0
			}
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil || !(v >= 0) || math.IsInf(v, 1) {
				problems = append(problems, fmt.Errorf("%s:%d: %s: found %q, expected seconds", file, line, name, fields[i]))
			}
			return v
		}
		q := &Request{
			ID:              fields[columns["request"]],
			ArrivalNS:       number("arrival_ns", 0, maxArrivalNS),
			InputTokens:     int(number("input_tokens", 1, perfio.MaxKey)),
			OutputTokens:    int(number("output_tokens", 1, perfio.MaxKey)),
			PrefixTokens:    int(number("prefix_tokens", 0, perfio.MaxKey)),
			MeasuredTTFT:    seconds("measured_ttft_s"),
			MeasuredLatency: seconds("measured_latency_s"),
		}
		if i, ok := columns["prefix"]; ok {
			q.Prefix = fields[i]
		}
		if first, ok := lines[q.ID]; ok {
			problems = append(problems, fmt.Errorf("%s:%d: request: found %q again, first in line %d", file, line, q.ID, first))
		}
		lines[q.ID] = line
		if len(problems) > 0 {
			return nil, errors.Join(problems...)
		}
		out = append(out, q)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: found no requests", file)
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].ArrivalNS < out[j].ArrivalNS })
	return out, nil
}
