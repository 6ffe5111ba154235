package replay

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Options
	}{
		{"perf/H200", Options{Bundle: "perf/H200"}},
		{"b,delay_ms=0.5,noise=0.01,drift=0.04,seed=-7,fail=0.1,crash=0.2,hang=0.3,interpolate=true", Options{
			Bundle: "b", Delay: 500 * time.Microsecond, Noise: 0.01, Drift: 0.04, Seed: -7, Fail: 0.1, Crash: 0.2, Hang: 0.3, Interpolate: true,
		}},
		{"a,b,seed=1", Options{Bundle: "a,b", Seed: 1}},
		{"a=b/c", Options{Bundle: "a=b/c"}},
		{"b,interpolate=false,drift=-0.04", Options{Bundle: "b", Drift: -0.04}},
	} {
		got, err := Parse(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.text, diff)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "found no bundle",
		",seed=1":               "found no bundle",
		"b,speed=1":             `unknown key "speed", expected one of delay_ms, noise, drift, seed, fail, crash, hang, interpolate`,
		"b,noise=x":             `noise: found "x", expected a number from 0 to 1`,
		"b,noise=NaN":           `noise: found "NaN", expected`,
		"b,fail=1.1":            `fail: found "1.1", expected a number from 0 to 1`,
		"b,delay_ms=-1":         `delay_ms: found "-1", expected a number from 0 to 86400000`,
		"b,drift=-1":            `drift: found "-1", expected a number from -0.99 to 1`,
		"b,seed=1.5":            `seed: found "1.5", expected an integer`,
		"b,interpolate=yes":     `interpolate: found "yes", expected true or false`,
		"b,seed=1,seed=2":       "seed stands twice",
		"b,fail=0.5,crash=0.6":  "fail, crash and hang: found a sum of 1.1, expected at most 1",
		"b,noise=":              `noise: found "", expected a number`,
		"b,interpolate=true,x=": `unknown key "x"`,
	} {
		_, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	for _, o := range []Options{{}, {Bundle: "b", Noise: -1}, {Bundle: "b", Delay: -1}, {Bundle: "b", Hang: 2}} {
		if _, err := Open(o); err == nil || !strings.HasPrefix(err.Error(), "replay: ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
