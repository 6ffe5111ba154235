package stepjudge

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/layerprof/layerprof/perfio"
)

// Step is a measured step.
type Step struct {
	Requests []perfio.Request `json:"requests"` // in executed order
	StartUS  float64          `json:"start_us"` // on the run's clock
}

const maxLineBytes = 16 << 20

// ReadSteps reads JSON lines {"requests":[[new,history],…],"start_us":…}, gzipped
// or not; other keys are ignored. The steps must stand in the order in which they
// started.
func ReadSteps(file string) (steps []Step, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	var r io.Reader = in
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		r = z
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLineBytes)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var raw struct {
			Requests []perfio.Request `json:"requests"`
			StartUS  *float64         `json:"start_us"`
		}
		if err := json.Unmarshal(lines.Bytes(), &raw); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		switch {
		case len(raw.Requests) == 0:
			return nil, fmt.Errorf("%s:%d: requests: found none, expected one or more", file, n)
		case raw.StartUS == nil:
			return nil, fmt.Errorf("%s:%d: start_us: found none", file, n)
		case len(steps) > 0 && *raw.StartUS < steps[len(steps)-1].StartUS:
			return nil, fmt.Errorf("%s:%d: start_us: found %v, expected at least the step's before, %v", file, n, *raw.StartUS, steps[len(steps)-1].StartUS)
		}
		for _, q := range raw.Requests {
			if q.NewTokens < 1 || q.KVHistory < 0 {
				return nil, fmt.Errorf("%s:%d: requests: found [%d,%d], expected at least [1,0]", file, n, q.NewTokens, q.KVHistory)
			}
		}
		steps = append(steps, Step{raw.Requests, *raw.StartUS})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(steps) == 0 {
		return nil, errors.New(file + ": found no steps")
	}
	return steps, nil
}
