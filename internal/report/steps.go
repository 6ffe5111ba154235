package report

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/layerprof/layerprof/internal/chart"
	"github.com/layerprof/layerprof/internal/lint"
	"github.com/layerprof/layerprof/perfio"
)

// stepData are the whole steps of one mode and depth at one degree of a bundle.
type stepData struct {
	Bundle int    `json:"bundle"`
	TP     int    `json:"tp"`
	Mode   string `json:"mode"`
	Depth  int    `json:"depth"`
	Sizes  []int  `json:"sizes"` // that graphs were captured for
	// Steps of decodes alone, by how many: the median, the tenth and the
	// ninetieth of a hundred, and the median of the device's forward.
	Decodes []int  `json:"decodes"`
	US      values `json:"us"`
	LowUS   values `json:"low_us"`
	HighUS  values `json:"high_us"`
	Forward values `json:"forward_us"`
	Counts  []int  `json:"counts"`
	Marks   []int  `json:"marks,omitempty"` // positions that hold rows that lint names
	// Steps with a prefill, or some of them, by their tokens.
	Tokens        []int  `json:"tokens"`
	Beside        []int  `json:"beside"` // decodes
	PrefillUS     values `json:"prefill_us"`
	PrefillDevice values `json:"prefill_forward_us"`
	Lines         []int  `json:"lines"`
	PrefillMarks  []int  `json:"prefill_marks,omitempty"`
}

// stepMode is a line of the table of modes.
type stepMode struct {
	TP            int
	Mode, Depths  string
	Rows, Steps   int
	Graphs, Sizes string
	Engine, Host  string
}

type stepGroup struct {
	mode  string
	depth int
}

// addSteps shows step.csv of bundle i.
func (p *page) addSteps(i int, b *perfio.Bundle, found []lint.Finding) {
	v := p.Bundles[i]
	for t := range b.TPs {
		tp := &b.TPs[t]
		lines := map[stepGroup][]int{} // rows by index
		for j := range tp.Steps {
			k := stepGroup{tp.Steps[j].Mode, tp.Steps[j].Layers}
			lines[k] = append(lines[k], j)
		}
		if len(lines) == 0 {
			continue
		}
		groups := slices.SortedFunc(maps.Keys(lines), func(a, b stepGroup) int {
			return cmp.Or(cmp.Compare(slices.Index(perfio.StepModes(), a.mode), slices.Index(perfio.StepModes(), b.mode)), cmp.Compare(b.depth, a.depth))
		})
		if len(groups) > maxFigures {
			v.leaveOut("whole steps of depths beyond the first %d modes and depths", maxFigures)
			groups = groups[:maxFigures]
		}
		marks := markedLines(found, tp.Degree, "step")
		for _, k := range groups {
			s := newStepData(tp, k, lines[k], marks, v)
			s.Bundle, s.TP, s.Mode, s.Depth, s.Sizes = i, tp.Degree, k.mode, k.depth, b.Meta.CaptureSizes(tp.Degree, k.mode)
			if !p.spend(i, 4*len(s.Decodes)+2*len(s.Tokens)) {
				v.leaveOut("whole steps: the page is full")
				break
			}
			p.Data.Steps = append(p.Data.Steps, s)
		}
		v.addStepModes(b.Meta, tp, groups, lines)
	}
}

func newStepData(tp *perfio.TP, k stepGroup, rows []int, marks map[int]bool, v *bundleView) stepData {
	var s stepData
	marked := func(j int) bool { return marks[j+2] }
	decodes := chart.DecodeSteps(tp.Steps, k.mode, k.depth)
	if len(decodes) > maxPoints {
		v.leaveOut("whole steps of more than %d numbers of decodes, evenly chosen", maxPoints)
		decodes = thin(decodes, maxPoints, nil)
	}
	for _, d := range decodes {
		if slices.ContainsFunc(d.Rows, marked) {
			s.Marks = append(s.Marks, len(s.Decodes))
		}
		s.Decodes, s.Counts = append(s.Decodes, d.NDecode), append(s.Counts, d.Steps)
		s.US, s.Forward = append(s.US, shortOrAbsent(d.US)), append(s.Forward, shortOrAbsent(d.ForwardUS))
		s.LowUS, s.HighUS = append(s.LowUS, shortOrAbsent(d.P10)), append(s.HighUS, shortOrAbsent(d.P90))
	}
	prefills := slices.DeleteFunc(slices.Clone(rows), func(j int) bool { return tp.Steps[j].NPrefill == 0 })
	if len(prefills) > maxScatter {
		v.leaveOut("whole steps with a prefill beyond %d of a mode, evenly chosen", maxScatter)
		prefills = thin(prefills, maxScatter, marked)
	}
	for _, j := range prefills {
		r := &tp.Steps[j]
		if marked(j) {
			s.PrefillMarks = append(s.PrefillMarks, len(s.Lines))
		}
		s.Tokens, s.Beside, s.Lines = append(s.Tokens, r.PrefillChunk+r.NDecode), append(s.Beside, r.NDecode), append(s.Lines, j+2)
		s.PrefillUS, s.PrefillDevice = append(s.PrefillUS, shortOrAbsent(r.StepUS)), append(s.PrefillDevice, shortOrAbsent(r.DeviceForwardUS))
	}
	return s
}

// shortOrAbsent keeps what was not measured apart from 0.
func shortOrAbsent(us float64) float64 {
	if math.IsNaN(us) {
		return us
	}
	return short(us)
}

// addStepModes says how the engine ran the steps of each mode.
func (v *bundleView) addStepModes(m *perfio.Meta, tp *perfio.TP, groups []stepGroup, lines map[stepGroup][]int) {
	for _, mode := range perfio.StepModes() {
		text := func(key string) string {
			return chart.Printable(m.Text("steps", "per_tp", strconv.Itoa(tp.Degree), mode, key))
		}
		row := stepMode{TP: tp.Degree, Mode: mode, Graphs: text("graph_mode"), Host: text("cpu"),
			Engine: strings.TrimSpace(text("vllm_version") + " " + text("model_runner")), Sizes: sizesText(m.CaptureSizes(tp.Degree, mode))}
		var depths []string
		for _, k := range groups {
			if k.mode != mode {
				continue
			}
			depths = append(depths, strconv.Itoa(k.depth))
			row.Rows += len(lines[k])
			for _, j := range lines[k] {
				row.Steps += tp.Steps[j].Steps
			}
		}
		if row.Depths = strings.Join(depths, ", "); row.Rows > 0 {
			v.Steps = append(v.Steps, row)
		}
	}
}

// sizesText is a list of sizes in short: "1, 2, 4, 8…256 by 8".
func sizesText(sizes []int) string {
	const run, most = 4, 40
	var parts []string
	for i := 0; i < len(sizes); {
		if len(parts) == most {
			parts = append(parts, fmt.Sprintf("… %d in all", len(sizes)))
			break
		}
		end := i + 1
		for end < len(sizes) && sizes[end]-sizes[end-1] == sizes[i+1]-sizes[i] {
			end++
		}
		if end-i >= run {
			parts = append(parts, fmt.Sprintf("%d…%d by %d", sizes[i], sizes[end-1], sizes[i+1]-sizes[i]))
			i = end
			continue
		}
		parts = append(parts, strconv.Itoa(sizes[i]))
		i++
	}
	return strings.Join(parts, ", ")
}
