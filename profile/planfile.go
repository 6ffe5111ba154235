package profile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// planLine is one line of a plan file: a shot, given by the key of the row that
// it is for, or a skew case, which stands for its three batches. Which fields a
// category has is what lineOf writes.
type planLine struct {
	TP        int              `json:"tp"`
	Category  Category         `json:"category"`
	Tokens    int              `json:"tokens,omitempty"`
	Sequences int              `json:"sequences,omitempty"`
	Experts   int              `json:"experts,omitempty"`
	Point     *planPoint       `json:"point,omitempty"`
	Case      *planCase        `json:"case,omitempty"`
	Requests  []perfio.Request `json:"requests,omitempty"`
	Histogram []int            `json:"histogram,omitempty"`
	Layers    []string         `json:"layers,omitempty"`
}

type planPoint struct {
	PrefillChunk int `json:"prefill_chunk"`
	KVPrefill    int `json:"kv_prefill"`
	NDecode      int `json:"n_decode"`
	KVDecode     int `json:"kv_decode"`
}

type planCase struct {
	N    int     `json:"n"`
	NB   int     `json:"nb"`
	Skew float64 `json:"skew"`
	PC   int     `json:"pc"`
	KP   int     `json:"kp"`
	KVS  int     `json:"kvs"`
}

// maxPlanLine bounds a line: a batch of 100,000 requests fits.
const maxPlanLine = 4 << 20

// WriteTo writes the plan as JSON lines, in plan order. What stands in it can be
// edited and read again by ReadPlan; a line that is taken out is not measured.
func (p *Plan) WriteTo(w io.Writer) (int64, error) {
	counted := &countingWriter{w: w}
	buffered := bufio.NewWriter(counted)
	encoder := json.NewEncoder(buffered)
	for _, tp := range p.TPs {
		for _, c := range tp.Categories {
			for i := range c.Shots {
				if c.Shots[i].Case != nil && c.Shots[i].Role != RoleMean {
					continue // the case's first shot has written it
				}
				line := lineOf(tp.TP, &c.Shots[i])
				if c.ShotLayers != nil {
					line.Layers = c.ShotLayers[i]
				}
				if err := encoder.Encode(line); err != nil {
					return counted.n, err
				}
			}
		}
	}
	return counted.n, buffered.Flush()
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

func lineOf(tp int, s *Shot) planLine {
	line := planLine{TP: tp, Category: s.Category}
	switch s.Category {
	case Dense:
		line.Tokens = s.Tokens()
	case PerSequence:
		line.Sequences = s.Sequences()
	case Attention:
		point := planPoint(s.Point)
		line.Point = &point
	case MoE:
		line.Tokens, line.Experts, line.Histogram = s.Tokens(), s.Experts, s.Histogram
	case Skew:
		line.Case = &planCase{s.Case.N, s.Case.NB, s.Case.Skew, s.Case.PC, s.Case.KP, s.Case.KVS}
	default:
		line.Requests = s.Requests()
	}
	return line
}

// ReadPlan reads a plan file; name stands in errors, which say the line.
// opts.TPs nil means all that the file has, else lines of other degrees are
// passed over, as are those of categories that opts does not want. Shots that
// the limits exclude are errors.
func ReadPlan(r io.Reader, name string, limits Limits, arch *perfio.Architecture, opts PlanOptions) (*Plan, error) {
	if err := limits.check(); err != nil {
		return nil, err
	}
	reader := planReader{limits: limits, order: opts.Order, plans: make(map[int]map[Category]*CategoryPlan), lines: make(map[string]int)}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxPlanLine)
	var errs []error
	for n := 1; scanner.Scan() && len(errs) < 20; n++ {
		if text := bytes.TrimSpace(scanner.Bytes()); len(text) > 0 {
			if err := reader.add(n, text); err != nil {
				errs = append(errs, fmt.Errorf("%s:%d: %w", name, n, err))
			}
		}
	}
	if err := scanner.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if len(opts.TPs) == 0 {
		opts.TPs = slices.Collect(maps.Keys(reader.plans))
	}
	opts, err := opts.filled()
	if err != nil {
		return nil, err
	}
	plan := &Plan{Options: opts, Limits: limits}
	for _, tp := range opts.TPs {
		p := planner{tp: tp, limits: limits, arch: arch, opts: opts}
		tpPlan := TPPlan{TP: tp}
		for _, category := range CategoryOrder {
			c := reader.plans[tp][category]
			if c == nil || !opts.wants(category) {
				continue
			}
			c.Layers = p.categoryLayers(category)
			if category == Skew {
				c.setCases(c.Cases, opts.Order)
			}
			if !slices.ContainsFunc(c.ShotLayers, func(l []string) bool { return l != nil }) {
				c.ShotLayers = nil
			}
			for i, layers := range c.ShotLayers {
				if layers == nil {
					c.ShotLayers[i] = c.Layers
				}
			}
			tpPlan.Categories = append(tpPlan.Categories, *c)
		}
		plan.TPs = append(plan.TPs, tpPlan)
	}
	return plan, nil
}

// planReader gathers lines.
type planReader struct {
	limits Limits
	order  Order
	plans  map[int]map[Category]*CategoryPlan
	lines  map[string]int // the line on which a row's key stood first
}

func (r *planReader) add(n int, text []byte) error {
	var line planLine
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&line); err != nil {
		return err
	}
	if decoder.More() {
		return errors.New("found more after the shot, expected one a line")
	}
	if line.TP < 1 {
		return fmt.Errorf("tp: found %d, expected at least 1", line.TP)
	}
	shots, err := line.shots(r.order)
	if err != nil {
		return err
	}
	for _, shot := range shots {
		for _, g := range shot.Groups {
			if most := max(g.Count, g.NewTokens, g.KVHistory); most > overflowKV {
				return fmt.Errorf("%s: found %d, expected at most %d", line.Category, most, overflowKV)
			}
		}
		if reason := r.limits.Infeasible(shot.Groups); reason != "" {
			return fmt.Errorf("%s: beyond the engine's limits: %s", line.Category, reason)
		}
	}
	if line.Requests == nil { // equal random batches are no mistake
		key := fmt.Sprint(line.TP, line.Category, shots[len(shots)-1].Shape(), shots[0].Point)
		if first := r.lines[key]; first > 0 {
			return fmt.Errorf("%s: stands on line %d already", line.Category, first)
		}
		r.lines[key] = n
	}

	if r.plans[line.TP] == nil {
		r.plans[line.TP] = make(map[Category]*CategoryPlan)
	}
	c := r.plans[line.TP][line.Category]
	if c == nil {
		c = &CategoryPlan{Category: line.Category}
		r.plans[line.TP][line.Category] = c
	}
	if line.Category == Skew {
		c.Cases = append(c.Cases, *shots[0].Case)
		return nil
	}
	c.Shots = append(c.Shots, shots...)
	c.ShotLayers = append(c.ShotLayers, line.Layers)
	return nil
}

// shots are the batches that a line stands for.
func (l *planLine) shots(order Order) ([]Shot, error) {
	if want := l.wantedField(); want != "" {
		return nil, fmt.Errorf("%s: expected %s and nothing else but tp, category and layers", l.Category, want)
	}
	switch l.Category {
	case Dense:
		return []Shot{denseShot(l.Tokens)}, nil
	case PerSequence:
		return []Shot{sequenceShot(l.Sequences)}, nil
	case MoE:
		shot := moeShot(l.Tokens, l.Experts)
		shot.Histogram = l.Histogram
		return []Shot{shot}, nil
	case Attention:
		p := AttentionPoint(*l.Point)
		switch {
		case min(p.PrefillChunk, p.KVPrefill, p.NDecode, p.KVDecode) < 0:
			return nil, fmt.Errorf("attention: found a negative number in %+v", p)
		case p.PrefillChunk == 0 && p.NDecode == 0:
			return nil, errors.New("attention: prefill_chunk and n_decode are both 0")
		case p.PrefillChunk == 0 && p.KVPrefill > 0, (p.NDecode == 0) != (p.KVDecode == 0):
			return nil, fmt.Errorf("attention: a history without its chunk or decodes, or decodes without one: %+v", p)
		}
		return []Shot{attentionShot(p, order)}, nil
	case Skew:
		c := l.Case
		if c.N < 2 || c.NB < 1 || c.NB >= c.N || c.KVS < 1 || c.PC < 0 || c.KP < 0 || (c.PC == 0 && c.KP > 0) || !(c.Skew > 1) || float64(c.KVS)*c.Skew > overflowKV {
			return nil, fmt.Errorf("skew: found %+v, expected 1 <= nb < n, skew > 1, kvs >= 1, and kp only with pc", *c)
		}
		made := newSkewCase(c.N, float64(c.NB)/float64(c.N), c.Skew, c.PC, c.KP, c.KVS)
		shots := made.Shots(order)
		return shots[:], nil
	}
	for _, r := range l.Requests {
		if r.NewTokens < 1 || r.KVHistory < 0 {
			return nil, fmt.Errorf("requests: found [%d,%d], expected at least 1 new token and no negative history", r.NewTokens, r.KVHistory)
		}
	}
	return []Shot{{Category: l.Category, Groups: groupsOf(l.Requests)}}, nil
}

// wantedField says what a line of the category has, where this one has
// something else.
func (l *planLine) wantedField() string {
	other := planLine{TP: l.TP, Category: l.Category, Layers: l.Layers}
	var want string
	var ok bool
	switch l.Category {
	case Dense:
		want, ok, other.Tokens = "tokens", l.Tokens > 0, l.Tokens
	case PerSequence:
		want, ok, other.Sequences = "sequences", l.Sequences > 0, l.Sequences
	case MoE:
		want, ok = "tokens, and experts or a histogram", l.Tokens > 0 && (l.Experts > 0) != (l.Histogram != nil)
		other.Tokens, other.Experts, other.Histogram = l.Tokens, l.Experts, l.Histogram
	case Attention:
		want, ok, other.Point = "a point", l.Point != nil, l.Point
	case Skew:
		want, ok, other.Case = "a case", l.Case != nil, l.Case
	case Batches, Validation:
		want, ok, other.Requests = "requests", len(l.Requests) > 0, l.Requests
	default:
		return fmt.Sprintf("one of the categories %v", CategoryOrder)
	}
	if ok && reflect.DeepEqual(*l, other) {
		return ""
	}
	return want
}
