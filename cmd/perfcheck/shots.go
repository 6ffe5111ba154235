package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/traceloader"
)

// shotAnswer is one line of `query --shots --json`.
type shotAnswer struct {
	Layers map[string]int64 `json:"layers"` // per call
	// Collectives is what ranks exchange after a call of the layer; absent where
	// the degree is emulated.
	Collectives map[string]int64 `json:"collectives,omitempty"`
	BlockNS     int64            `json:"block_ns"`
	// StepNS is prologue, the model's depth of blocks, and head; with --mode from
	// the step's start to the next one's. Absent where the depth is not known.
	StepNS *int64 `json:"step_ns,omitempty"`
	// Sigma is one standard error of StepNS, relative; absent where it is not known,
	// as of sums of layers under parity.
	Sigma  float64    `json:"sigma,omitempty"`
	Parts  *stepParts `json:"parts,omitempty"` // with --mode
	Status string     `json:"status"`
}

// stepParts are what makes up a step of an engine.
type stepParts struct {
	Mode         string  `json:"mode"`                 // kernels where the step is a sum of layers
	AskedMode    string  `json:"asked_mode,omitempty"` // which a sum of layers stands in for
	KernelsOnly  bool    `json:"kernels_only,omitempty"`
	Graph        string  `json:"graph"`
	PaddedTokens int     `json:"padded_tokens"`
	KernelsNS    int64   `json:"kernels_ns"`
	BeforeNS     int64   `json:"before_ns"`
	LaunchNS     int64   `json:"launch_ns"`
	ForwardNS    int64   `json:"forward_ns"`
	AfterNS      int64   `json:"after_ns"`
	HostNS       int64   `json:"host_ns"`
	DeviceNS     int64   `json:"device_ns"`
	Bound        string  `json:"bound"`
	Sigma        float64 `json:"sigma"`
}

// kernelsMode is the name of sums of layers among the modes.
const kernelsMode = "kernels"

// stepFlags say which engine's steps a batch is one of.
type stepFlags struct {
	mode  string
	from  string
	depth int
}

func (f *stepFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.mode, "mode", kernelsMode, "of --shots: kernels (the sum of the layers), or an engine's mode in step.csv: "+strings.Join(perfio.StepModes(), ", "))
	cmd.Flags().StringVar(&f.from, "steps-from", "", "a bundle of the same host and GPU whose step.csv is used in place of the bundle's own")
	cmd.Flags().IntVar(&f.depth, "depth", 0, "decoder blocks of a step; 0: the model's own")
}

// open prepares the steps. asked is false where no flag asks for any: they are then
// the sums of the layers, nil where the model's depth is not known.
func (f *stepFlags) open(table *traceloader.Table, tp int) (steps *traceloader.Steps, asked bool, err error) {
	o, err := f.options(table)
	if err != nil {
		return nil, false, err
	}
	if asked = o.Mode != traceloader.KernelsOnly || o.Depth > 0; !asked {
		if walk, err := table.Walk(tp); err != nil || walk.Depth() == 0 {
			return nil, false, err
		}
	}
	s, err := table.Steps(tp, o)
	return &s, asked, err
}

// eachShot runs visit over the lines of a shots file, gzipped or not; - is
// standard input.
func eachShot(cmd *cobra.Command, file string, visit func(line int, shot perfio.BatchRow) error) (err error) {
	in, closeFile, err := openQueryFile(file, cmd.InOrStdin())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFile()) }()
	name := file
	if file == "-" {
		name = "stdin"
	}
	r := perfio.NewBatchReader(in, name)
	for r.Scan() {
		shot, err := r.Record()
		if err != nil {
			return err
		}
		if err := visit(r.Line(), shot); err != nil {
			return fmt.Errorf("%s:%d: %w", name, r.Line(), err)
		}
	}
	return r.Err()
}

func queryShots(cmd *cobra.Command, table *traceloader.Table, tp int, engine stepFlags, file string, asJSON bool) error {
	steps, asked, err := engine.open(table, tp)
	if err != nil {
		return err
	}
	walk, err := table.Walk(tp)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	encoder := json.NewEncoder(out)
	var step traceloader.Step
	var answers []traceloader.Answer
	count := 0
	err = eachShot(cmd, file, func(line int, shot perfio.BatchRow) error {
		batch := traceloader.NewBatch(shot.Requests)
		if !walk.Step(batch, &step) {
			return errors.New("requests: no answer for this batch")
		}
		var status traceloader.Status
		answers, status = walk.Explain(batch, answers[:0])
		count++
		answer := shotAnswer{Layers: map[string]int64{}, BlockNS: step.BlockNS, Status: status.String()}
		for _, part := range [][]traceloader.LayerLatency{step.Prologue, step.Block, step.Head} {
			for _, l := range part {
				if l.Category != traceloader.CategoryCollective {
					answer.Layers[l.Layer] = l.LatencyNS
					continue
				}
				if answer.Collectives == nil {
					answer.Collectives = map[string]int64{}
				}
				answer.Collectives[l.Layer] = l.LatencyNS
			}
		}
		if total, ok := step.TotalNS(); ok {
			answer.StepNS = &total
		}
		if steps != nil {
			e, ok := steps.Estimate(batch)
			if !ok {
				return errors.New("requests: no answer for this step")
			}
			answer.StepNS, answer.Status, answer.Sigma = &e.LatencyNS, e.Status.String(), e.Sigma
		}
		if asked {
			var t traceloader.StepTime
			if !steps.Time(batch, &t) {
				return errors.New("requests: no answer for this step")
			}
			answer.Parts = &stepParts{
				Mode: string(steps.Mode()), Graph: t.Graph, PaddedTokens: t.PaddedTokens, KernelsNS: t.KernelsNS, BeforeNS: t.BeforeNS, LaunchNS: t.LaunchNS,
				ForwardNS: t.ForwardNS, AfterNS: t.AfterNS, HostNS: t.HostNS, DeviceNS: t.DeviceNS, Bound: t.Bound.String(), Sigma: answer.Sigma,
			}
			if p := answer.Parts; t.KernelsOnly {
				p.AskedMode, p.Mode, p.KernelsOnly = p.Mode, kernelsMode, true
			}
			step.Depth = steps.Depth()
		}
		if asJSON {
			return encoder.Encode(answer)
		}
		return printShot(out, line, batch, &step, answer)
	})
	if err == nil && count == 0 {
		err = fmt.Errorf("%s: found no batches", file)
	}
	return errors.Join(err, out.Flush())
}

func printShot(out io.Writer, line int, batch traceloader.Batch, step *traceloader.Step, answer shotAnswer) error {
	fmt.Fprintf(out, "batch %d: %d tokens, %d sequences, %s\n", line, batch.Tokens, batch.Sequences, answer.Status)
	for _, part := range []struct {
		name   string
		layers []traceloader.LayerLatency
	}{{"prologue", step.Prologue}, {"block", step.Block}, {"head", step.Head}} {
		for _, l := range part.layers {
			name := l.Layer
			if l.Category == traceloader.CategoryCollective {
				name = "+ collective" // of the layer above
			}
			fmt.Fprintf(out, "  %-9s %-16s %12d ns\n", part.name, name, l.LatencyNS)
		}
	}
	_, err := fmt.Fprintf(out, "  one block %27d ns\n", answer.BlockNS)
	if answer.StepNS != nil {
		_, err = fmt.Fprintf(out, "  step of %2d blocks %20d ns%s\n", step.Depth, *answer.StepNS, sigmaText(answer.Sigma))
	}
	switch p := answer.Parts; {
	case p == nil:
	case p.AskedMode != "":
		_, err = fmt.Fprintf(out, "  a sum of kernels: no steps of %s were measured\n", p.AskedMode)
	case p.KernelsOnly:
		_, err = fmt.Fprintln(out, "  a sum of kernels")
	default:
		_, err = fmt.Fprintf(out, "  %s %s: %d tokens, bound by the %s; before %d, launch %d, forward %d, after %d ns; kernels %d ns\n",
			p.Mode, p.Graph, p.PaddedTokens, p.Bound, p.BeforeNS, p.LaunchNS, p.ForwardNS, p.AfterNS, p.KernelsNS)
	}
	return err
}

// sigmaText is a known relative error, for lines.
func sigmaText(sigma float64) string {
	if sigma == 0 {
		return ""
	}
	return fmt.Sprintf(", sigma %.1f%%", 100*sigma)
}
