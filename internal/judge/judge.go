package judge

import (
	"fmt"

	"github.com/layerprof/layerprof/internal/accuracy"
	"github.com/layerprof/layerprof/internal/sweep"
	"github.com/layerprof/layerprof/perfio"
)

// Options of Tests and Shots. The zero value judges everything.
type Options struct {
	Tests []string // of accuracy.Tests(); nil is all
	TPs   []int    // nil is all
	Rules []string // of RuleNames(); nil is parity and accurate
}

// RuleNames are the rules that can be judged: parity, accurate asked with
// lists of requests, and accurate asked with three numbers.
func RuleNames() []string { return []string{"parity", accurateName, numbersName} }

// Report is what held-out rows of a bundle say.
type Report struct {
	Tests  []accuracy.Result `json:"tests"`
	Sweeps []SweepReport     `json:"sweeps"`
}

// SweepReport is the ratio between the two sweeps of a tp folder, by which the
// times of its skew.csv were divided.
type SweepReport struct {
	TP int `json:"tp"`
	sweep.Ratios
}

// Tests judges the rules by held-out rows of the bundle's own files. A test
// without data is left out.
func Tests(b *perfio.Bundle, o Options) (Report, error) {
	r := Report{Tests: []accuracy.Result{}, Sweeps: []SweepReport{}}
	for i := range b.TPs {
		tp := &b.TPs[i]
		if !o.wantsTP(tp.Degree) || len(tp.Attention) == 0 {
			continue
		}
		d, ratios := accuracy.Normalize(b.Meta, accuracy.Data{Attention: tp.Attention, Skew: tp.Skew})
		if len(tp.Skew) > 0 {
			r.Sweeps = append(r.Sweeps, SweepReport{TP: tp.Degree, Ratios: ratios})
		}
		for _, name := range o.rules() {
			rules, err := rulesOf(name, b.Meta, tp.Degree)
			if err != nil {
				return r, err
			}
			results, err := accuracy.Run(d, rules, accuracy.Options{Tests: o.Tests, TP: tp.Degree})
			if err != nil {
				return r, fmt.Errorf("tp%d: %w", tp.Degree, err)
			}
			r.Tests = append(r.Tests, results...)
		}
	}
	return r, nil
}

func (o Options) rules() []string {
	if len(o.Rules) == 0 {
		return []string{"parity", accurateName}
	}
	return o.Rules
}

func (o Options) wantsTP(degree int) bool {
	for _, d := range o.TPs {
		if d == degree {
			return true
		}
	}
	return len(o.TPs) == 0
}

func rulesOf(name string, m *perfio.Meta, degree int) (accuracy.Rules, error) {
	switch name {
	case "parity":
		return parityRules{}, nil
	case accurateName:
		return accurateRules{meta: m, degree: degree}, nil
	case numbersName:
		return accurateRules{meta: m, degree: degree, numbers: true}, nil
	}
	return nil, fmt.Errorf("judge: rules: found %q, expected one of %v", name, RuleNames())
}
