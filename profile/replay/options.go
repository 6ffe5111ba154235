package replay

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Options say what to replay and what to inject. The zero value of every field
// but Bundle injects nothing.
type Options struct {
	// Bundle is the folder that holds meta.yaml and tp<N>/; required.
	Bundle string
	// Interpolate answers shots that the bundle has no row for.
	Interpolate bool
	// Delay is how long each shot takes on the wall clock.
	Delay time.Duration
	// Noise is the relative standard deviation of every sample, 0 to 1.
	Noise float64
	// Drift is by how much the device is slower in its second state, above -1
	// and at most 1; it changes states every few hundred shots.
	Drift float64
	// Fail, Crash and Hang are the probabilities, 0 to 1, that an attempt at a
	// shot ends with the status Failed, with a lost engine, or not at all.
	Fail, Crash, Hang float64
	Seed              int64
}

// keys are the options of a driver string.
var keys = []struct {
	name string
	set  func(o *Options, value string) error
}{
	{"delay_ms", func(o *Options, v string) error {
		ms, err := number(v, 0, 86_400_000)
		o.Delay = time.Duration(ms * float64(time.Millisecond))
		return err
	}},
	{"noise", func(o *Options, v string) (err error) { o.Noise, err = number(v, 0, 1); return err }},
	{"drift", func(o *Options, v string) (err error) { o.Drift, err = number(v, -0.99, 1); return err }},
	{"seed", func(o *Options, v string) (err error) {
		if o.Seed, err = strconv.ParseInt(v, 10, 64); err != nil {
			err = errors.New("expected an integer")
		}
		return err
	}},
	{"fail", func(o *Options, v string) (err error) { o.Fail, err = number(v, 0, 1); return err }},
	{"crash", func(o *Options, v string) (err error) { o.Crash, err = number(v, 0, 1); return err }},
	{"hang", func(o *Options, v string) (err error) { o.Hang, err = number(v, 0, 1); return err }},
	{"interpolate", func(o *Options, v string) (err error) {
		if o.Interpolate, err = strconv.ParseBool(v); err != nil {
			err = errors.New("expected true or false")
		}
		return err
	}},
}

// Parse reads "BUNDLE,key=value,…", what stands behind "replay:" in a driver
// flag. A folder's name may hold commas as long as no part of it behind one
// looks like key=value.
func Parse(text string) (Options, error) {
	var o Options
	parts := strings.Split(text, ",")
	n := len(parts)
	for n > 1 && strings.Contains(parts[n-1], "=") {
		n--
	}
	o.Bundle = strings.Join(parts[:n], ",")
	if o.Bundle == "" {
		return o, errors.New("replay: found no bundle, expected replay:BUNDLE[,key=value…]")
	}
	seen := map[string]bool{}
	for _, part := range parts[n:] {
		name, value, _ := strings.Cut(part, "=")
		if seen[name] {
			return o, fmt.Errorf("replay: %s stands twice", name)
		}
		seen[name] = true
		if err := o.set(name, value); err != nil {
			return o, err
		}
	}
	return o, o.check()
}

func (o *Options) set(name, value string) error {
	var known []string
	for _, k := range keys {
		if k.name == name {
			if err := k.set(o, value); err != nil {
				return fmt.Errorf("replay: %s: found %q, %w", name, value, err)
			}
			return nil
		}
		known = append(known, k.name)
	}
	return fmt.Errorf("replay: unknown key %q, expected one of %s", name, strings.Join(known, ", "))
}

// check finds what a caller that filled Options by hand got wrong.
func (o *Options) check() error {
	if o.Bundle == "" {
		return errors.New("replay: Options.Bundle is missing")
	}
	if o.Delay < 0 {
		return fmt.Errorf("replay: delay_ms: found %v, expected none below 0", o.Delay)
	}
	for _, f := range []struct {
		name  string
		value float64
		least float64
	}{
		{"noise", o.Noise, 0}, {"drift", o.Drift, -0.99}, {"fail", o.Fail, 0}, {"crash", o.Crash, 0}, {"hang", o.Hang, 0},
	} {
		if !(f.value >= f.least && f.value <= 1) {
			return fmt.Errorf("replay: %s: found %v, expected a number from %v to 1", f.name, f.value, f.least)
		}
	}
	if sum := o.Fail + o.Crash + o.Hang; sum > 1 {
		return fmt.Errorf("replay: fail, crash and hang: found a sum of %v, expected at most 1", sum)
	}
	return nil
}

func number(text string, least, most float64) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || v < least || v > most {
		return 0, fmt.Errorf("expected a number from %s to %s", strconv.FormatFloat(least, 'f', -1, 64), strconv.FormatFloat(most, 'f', -1, 64))
	}
	return v, nil
}
