package report

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"

	"github.com/layerprof/layerprof/internal/accuracy"
	"github.com/layerprof/layerprof/internal/chart"
	"github.com/layerprof/layerprof/internal/judge"
	"github.com/layerprof/layerprof/perfio"
	"github.com/layerprof/layerprof/profile"
)

// Where the measurements come from that predictions are held against.
const (
	fromValidation = "validation.jsonl" // batches that no fit has seen
	fromBatches    = "batches.jsonl"    // batches that the accurate rules are fitted on
	fromSkew       = "skew.csv"         // batches at a mean length that attention.csv does not hold
	fromGrid       = "leave-one-out"    // rows of attention.csv without themselves
)

// Limits of what is judged while a page is made.
const (
	maxJudgedRows  = 200_000 // of an attention.csv
	maxJudgedBatch = 5_000
	maxJudgedCases = 1_500 // of a skew.csv
	// maxFittedRows of attention.csv, beyond the first degree's, the accurate rules
	// are fitted on for the sake of skew.csv: a degree of 20,000 takes half a second.
	maxFittedRows    = 30_000
	maxJudgedDecodes = 4096 // of a case
	histogramBins    = 41
)

// judgedRow is a line of the table of errors, in percent.
type judgedRow struct {
	TP                        int
	Source, Layer, Kind, Rule string
	accuracy.Stats
}

// judgedData is what the plots of predictions draw: one layer by one set of
// rules.
type judgedData struct {
	Bundle int      `json:"bundle"`
	TP     int      `json:"tp"`
	Source string   `json:"source"`
	Layer  string   `json:"layer"`
	Rules  string   `json:"rules"`
	N      int      `json:"n"`
	Kinds  []string `json:"kinds"`
	// Of the points shown, at most maxScatter, evenly chosen.
	Kind      []int    `json:"kind"`
	Measured  values   `json:"measured"`
	Predicted values   `json:"predicted"`
	Shapes    []string `json:"shapes"`
	// Histogram counts all signed errors: bin j covers BinLow + j*BinWidth
	// percent and up; the first and the last also what is beyond.
	BinLow    float64 `json:"bin_low"`
	BinWidth  float64 `json:"bin_width"`
	Histogram []int   `json:"histogram"`
}

// judged gathers the predictions of one layer by one set of rules.
type judged struct {
	data   judgedData
	points []prediction
	errors map[string]*accuracy.Errors
}

type prediction struct {
	kind                int
	measured, predicted float64
	shape               func() string
}

func (j *judged) add(kind string, measured, predicted, sigma float64, ok bool, shape func() string) {
	n := slices.Index(j.data.Kinds, kind)
	if n < 0 {
		n = len(j.data.Kinds)
		j.data.Kinds = append(j.data.Kinds, kind)
	}
	for _, k := range []string{kind, "all"} {
		if j.errors[k] == nil {
			j.errors[k] = new(accuracy.Errors)
		}
		j.errors[k].Add(predicted, sigma, ok, measured)
	}
	if ok {
		j.points = append(j.points, prediction{n, measured, predicted, shape})
	}
}

// judging is what a bundle's lookups say of what was measured. It touches
// nothing of the page, so that it can go on beside other work.
type judging struct {
	bundle int
	list   []*judged
	left   []string // what was left out
	fitted int      // rows of attention.csv that the accurate rules were fitted on
}

func (g *judging) leaveOut(format string, args ...any) {
	g.left = append(g.left, fmt.Sprintf(format, args...))
}

// judge holds a bundle's lookups against measurements.
func (g *judging) judge(s Source, b *perfio.Bundle) error {
	var lookups *judge.Lookups
	for t := range b.TPs {
		tp := &b.TPs[t]
		shots, source, err := apart(s.Files, tp)
		if err != nil {
			return err
		}
		switch {
		case len(tp.Attention) > maxJudgedRows:
			g.leaveOut("predictions from more than %d rows of attention.csv", maxJudgedRows)
		case len(shots) > 0:
			if len(shots) > maxJudgedBatch {
				g.leaveOut("batches of %s beyond %d, evenly chosen", source, maxJudgedBatch)
				shots = thin(shots, maxJudgedBatch, nil)
			}
			if lookups == nil {
				if lookups, err = judge.OpenLookups(b, judge.Options{Rules: []string{"accurate", "parity"}}); err != nil {
					g.leaveOut("predictions: %v", err)
					return nil
				}
			}
			g.shots(lookups, tp.Degree, shots, source)
		case len(tp.Attention) > 0:
			if err := g.skew(b, tp); err != nil {
				g.leaveOut("tp%d: predictions of skew.csv: %v", tp.Degree, err)
			}
			g.leaveOneOut(tp)
		}
	}
	return nil
}

// apart are the batches measured apart from a degree's tables, the best that
// the bundle has.
func apart(files fs.FS, tp *perfio.TP) ([]perfio.BatchRow, string, error) {
	name := fmt.Sprintf("tp%d/%s", tp.Degree, profile.ValidationFile)
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return tp.Batches, fromBatches, nil
	}
	if err != nil {
		return nil, "", err
	}
	var shots []perfio.BatchRow
	r := perfio.NewBatchReader(io.LimitReader(f, perfio.MaxTableBytes), name)
	for r.Scan() {
		shot, err := r.Record()
		if err != nil {
			return nil, "", errors.Join(err, f.Close())
		}
		shots = append(shots, shot)
	}
	return shots, fromValidation, errors.Join(r.Err(), f.Close())
}

func (g *judging) shots(lookups *judge.Lookups, degree int, shots []perfio.BatchRow, source string) {
	var list []*judged
	lookups.EachShot(degree, shots, func(q judge.Prediction) {
		n := len(list) - 1
		if n < 0 || list[n].data.Layer != q.Layer || list[n].data.Rules != q.Rules {
			list = append(list, &judged{errors: map[string]*accuracy.Errors{},
				data: judgedData{Bundle: g.bundle, TP: degree, Source: source, Layer: q.Layer, Rules: q.Rules, Kinds: []string{}}})
			n++
		}
		list[n].add(q.Kind, q.MeasuredUS, q.PredictedUS(), q.Sigma, q.OK, func() string { return shapeOf(shots[q.Shot].Requests) })
	})
	// Attention comes first; it is what the rules differ in.
	slices.SortStableFunc(list, func(a, b *judged) int { return rank(a.data.Layer) - rank(b.data.Layer) })
	g.list = append(g.list, list[:min(len(list), 2*maxFigures)]...)
}

func rank(layer string) int {
	if layer == "attention" {
		return 0
	}
	return 1
}

// skew holds attention.csv alone against batches of skew.csv whose decodes
// are all as long as the mean: lengths that the grid does not have.
func (g *judging) skew(b *perfio.Bundle, tp *perfio.TP) error {
	d, _ := accuracy.Normalize(b.Meta, accuracy.Data{Attention: tp.Attention, Skew: tp.Skew})
	held := map[perfio.AttentionRow]bool{}
	for _, r := range tp.Attention {
		r.TimeUS = 0
		held[r] = true
	}
	seen := map[perfio.AttentionRow]bool{}
	var cases []perfio.AttentionRow
	for _, r := range d.Skew {
		key := perfio.AttentionRow{PrefillChunk: r.PC, KVPrefill: r.KP, NDecode: r.N, KVDecode: r.KVMean}
		if held[key] || seen[key] || r.N > maxJudgedDecodes {
			continue
		}
		seen[key] = true
		key.TimeUS = r.TMeanUS
		cases = append(cases, key)
	}
	if len(cases) == 0 {
		return nil
	}
	first := b.Meta.PrefillFirst() // in the batch
	var shots []perfio.BatchRow
	for _, r := range thin(cases, maxJudgedCases, nil) {
		shots = append(shots, perfio.BatchRow{MeasuredUS: map[string]float64{"attention": r.TimeUS}, Requests: requestsOf(r, first)})
	}
	meta := b.Meta.Clone()
	meta.Delete("skew_fit")
	grid := &perfio.Bundle{Dir: b.Dir, Meta: meta, TPs: []perfio.TP{{Degree: tp.Degree, Attention: tp.Attention}}}
	rules := []string{"accurate", "parity"}
	if g.fitted += len(tp.Attention); g.fitted > maxFittedRows && g.fitted > len(tp.Attention) {
		rules = []string{"parity"}
		g.leaveOut("tp%d: predictions by the accurate rules, whose fit takes its time; perfcheck accuracy has them", tp.Degree)
	}
	lookups, err := judge.OpenLookups(grid, judge.Options{Rules: rules})
	if err == nil {
		g.shots(lookups, tp.Degree, shots, fromSkew)
	}
	return err
}

// requestsOf are the requests of a row, the prefill first or last.
func requestsOf(r perfio.AttentionRow, prefillFirst bool) []perfio.Request {
	list := make([]perfio.Request, 0, r.NDecode+1)
	prefill := perfio.Request{NewTokens: r.PrefillChunk, KVHistory: r.KVPrefill}
	if r.PrefillChunk > 0 && prefillFirst {
		list = append(list, prefill)
	}
	for range r.NDecode {
		list = append(list, perfio.Request{NewTokens: 1, KVHistory: r.KVDecode})
	}
	if r.PrefillChunk > 0 && !prefillFirst {
		list = append(list, prefill)
	}
	return list
}

// leaveOneOut holds the grid against itself.
func (g *judging) leaveOneOut(tp *perfio.TP) {
	for _, axis := range []struct{ test, name string }{{"T3", "attention, along prefill_chunk"}, {"T4", "attention, along n_decode"}} {
		j := &judged{errors: map[string]*accuracy.Errors{},
			data: judgedData{Bundle: g.bundle, TP: tp.Degree, Source: fromGrid, Layer: axis.name, Rules: "straight line", Kinds: []string{}}}
		judge.LeaveOneOut(tp, axis.test, func(r perfio.AttentionRow, us float64) {
			kind := "mixed"
			if r.PrefillChunk == 0 {
				kind = "decode"
			} else if r.NDecode == 0 {
				kind = "prefill"
			}
			j.add(kind, r.TimeUS, us, 0, true, func() string {
				return fmt.Sprintf("chunk %d over %d, %d decodes at %d", r.PrefillChunk, r.KVPrefill, r.NDecode, r.KVDecode)
			})
		})
		if len(j.points) > 0 {
			g.list = append(g.list, j)
		}
	}
}

// kindOrder is that of reports.
var kindOrder = []string{"all", perfio.KindDecode, perfio.KindDecodeSkew, perfio.KindPrefill, perfio.KindMixed, perfio.KindMixedSkew, perfio.KindMulti}

func (p *page) addJudged(j *judged) {
	d := &j.data
	v := p.Bundles[d.Bundle]
	layer := chart.Printable(d.Layer)
	for _, kind := range kindOrder {
		if e := j.errors[kind]; e != nil {
			v.Judged = append(v.Judged, judgedRow{d.TP, d.Source, layer, kind, d.Rules, e.Stats()})
		}
	}
	d.N = len(j.points)
	signed := make([]float64, len(j.points))
	for n, q := range j.points {
		signed[n] = 100 * (q.predicted/q.measured - 1)
	}
	d.histogram(signed)
	for _, q := range thin(j.points, maxScatter, nil) {
		d.Kind = append(d.Kind, q.kind)
		d.Measured = append(d.Measured, short(q.measured))
		d.Predicted = append(d.Predicted, short(q.predicted))
		d.Shapes = append(d.Shapes, q.shape())
	}
	d.Layer = layer
	cleanAll(d.Kinds)
	p.Data.Judged = append(p.Data.Judged, *d)
}

// histogram counts signed errors in percent: the bins reach to the 99th
// percentile of their size.
func (d *judgedData) histogram(signed []float64) {
	if len(signed) == 0 {
		return
	}
	size := make([]float64, len(signed))
	for i, x := range signed {
		size[i] = math.Abs(x)
	}
	slices.Sort(size)
	width := 2 * accuracy.Quantile(size, 0.99) / histogramBins
	step := math.Pow(10, math.Floor(math.Log10(max(width, 1e-3))))
	for _, nice := range []float64{1, 2, 5, 10} {
		if d.BinWidth = nice * step; d.BinWidth >= width {
			break
		}
	}
	d.BinWidth = digits(d.BinWidth, 3)
	d.BinLow = digits(-d.BinWidth*histogramBins/2, 4)
	d.Histogram = make([]int, histogramBins)
	for _, x := range signed {
		n := int(math.Floor((x - d.BinLow) / d.BinWidth))
		d.Histogram[min(max(n, 0), histogramBins-1)]++
	}
}

// shapeOf is a batch in short: "3 requests, 1042 new tokens, history 0…8192".
func shapeOf(requests []perfio.Request) string {
	tokens, low, high, prefills := 0, math.MaxInt, 0, 0
	for _, r := range requests {
		tokens += r.NewTokens
		low, high = min(low, r.KVHistory), max(high, r.KVHistory)
		if r.NewTokens > 1 {
			prefills++
		}
	}
	var text strings.Builder
	if prefills > 0 {
		fmt.Fprintf(&text, "%d prefills, ", prefills)
	}
	fmt.Fprintf(&text, "%d decodes, %d new tokens, history %d", len(requests)-prefills, tokens, low)
	if high > low {
		fmt.Fprintf(&text, "…%d", high)
	}
	return text.String()
}

func cleanAll(list []string) {
	for i := range list {
		list[i] = chart.Printable(list[i])
	}
}
