package report

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/layerprof/layerprof/internal/lint"
	"github.com/layerprof/layerprof/internal/tidy"
	"github.com/layerprof/layerprof/perfio"
)

// gridData is the attention or moe table of one degree of one bundle.
type gridData struct {
	Bundle int       `json:"bundle"`
	TP     int       `json:"tp"`
	Kind   string    `json:"kind"` // attention, moe
	Maps   []gridMap `json:"maps"`
	Marks  [][]int   `json:"marks,omitempty"` // prefill_chunk, kv_prefill, row, column
}

// gridMap is the grid at one prefill chunk and history: for attention rows are
// n_decode and columns kv_decode, for moe tokens and activated experts.
type gridMap struct {
	PC   int    `json:"pc"`
	KP   int    `json:"kp"`
	Rows []int  `json:"rows"`
	Cols []int  `json:"cols"`
	Z    values `json:"z"` // us, row by row
	// Least is the least time by the device's peak rates; absent where not known.
	Least values `json:"least,omitempty"`
}

// values are numbers of which NaN, written as null, is absent.
type values []float64

func (v values) MarshalJSON() ([]byte, error) {
	out := []byte{'['}
	for i, x := range v {
		if i > 0 {
			out = append(out, ',')
		}
		if math.IsNaN(x) {
			out = append(out, "null"...)
			continue
		}
		out = strconv.AppendFloat(out, x, 'f', -1, 64)
	}
	return append(out, ']'), nil
}

type slice struct{ pc, kp int }

type cell struct {
	row, col int
	us       float64
	key      tidy.Key
}

// addGrids shows the tables of bundle i that are more than curves.
func (p *page) addGrids(i int, b *perfio.Bundle, found []lint.Finding) {
	least := lint.LeastUS(b)
	for t := range b.TPs {
		tp := &b.TPs[t]
		attention := map[slice][]cell{}
		for _, r := range tp.Attention {
			k := slice{r.PrefillChunk, r.KVPrefill}
			attention[k] = append(attention[k], cell{r.NDecode, r.KVDecode, r.TimeUS, tidy.Key{TP: tp.Degree, Table: "attention", Layer: "attention",
				PrefillChunk: r.PrefillChunk, KVPrefill: r.KVPrefill, NDecode: r.NDecode, KVDecode: r.KVDecode}})
		}
		p.addGrid(i, tp.Degree, "attention", attention, least, found)
		moe := map[slice][]cell{}
		for _, r := range tp.MoE {
			moe[slice{}] = append(moe[slice{}], cell{r.Tokens, r.ActivatedExperts, r.TimeUS,
				tidy.Key{TP: tp.Degree, Table: "moe", Layer: "moe", Tokens: r.Tokens, ActivatedExperts: r.ActivatedExperts}})
		}
		p.addGrid(i, tp.Degree, "moe", moe, least, found)
	}
}

func (p *page) addGrid(i, degree int, kind string, slices_ map[slice][]cell, least func(tidy.Key) float64, found []lint.Finding) {
	if len(slices_) == 0 {
		return
	}
	v := p.Bundles[i]
	g := gridData{Bundle: i, TP: degree, Kind: kind}
	for _, f := range found {
		for _, k := range f.Keys {
			switch {
			case k.TP != degree || k.Table != kind:
			case kind == "moe":
				g.Marks = append(g.Marks, []int{0, 0, k.Tokens, k.ActivatedExperts})
			default:
				g.Marks = append(g.Marks, []int{k.PrefillChunk, k.KVPrefill, k.NDecode, k.KVDecode})
			}
		}
	}
	order := slices.SortedFunc(maps.Keys(slices_), func(a, b slice) int {
		if a.pc != b.pc {
			return a.pc - b.pc
		}
		return a.kp - b.kp
	})
	for _, at := range order {
		m := newGridMap(at, slices_[at], least, func() {
			v.leaveOut("rows and columns of %s grids beyond %d, evenly chosen", kind, maxSide)
		})
		if !p.spend(i, len(m.Z)) {
			v.leaveOut("curves and grids beyond %d values", maxValues)
			break
		}
		g.Maps = append(g.Maps, m)
	}
	p.Data.Grids = append(p.Data.Grids, g)
}

func newGridMap(at slice, cells []cell, least func(tidy.Key) float64, cut func()) gridMap {
	rows, cols := map[int]bool{}, map[int]bool{}
	for _, c := range cells {
		rows[c.row], cols[c.col] = true, true
	}
	m := gridMap{PC: at.pc, KP: at.kp, Rows: slices.Sorted(maps.Keys(rows)), Cols: slices.Sorted(maps.Keys(cols))}
	if len(m.Rows) > maxSide || len(m.Cols) > maxSide {
		cut()
		m.Rows, m.Cols = thin(m.Rows, maxSide, nil), thin(m.Cols, maxSide, nil)
	}
	m.Z = absent(len(m.Rows) * len(m.Cols))
	if least != nil {
		m.Least = absent(len(m.Z))
	}
	known := false
	for _, c := range cells {
		r, inRows := slices.BinarySearch(m.Rows, c.row)
		k, inCols := slices.BinarySearch(m.Cols, c.col)
		if !inRows || !inCols {
			continue
		}
		n := r*len(m.Cols) + k
		m.Z[n] = short(c.us)
		if least != nil {
			if us := least(c.key); us > 0 {
				m.Least[n], known = digits(us, 3), true
			}
		}
	}
	if !known {
		m.Least = nil
	}
	return m
}

func absent(n int) values {
	v := make(values, n)
	for i := range v {
		v[i] = math.NaN()
	}
	return v
}

// alphaData is skew_fit.csv of one degree of one bundle.
type alphaData struct {
	Bundle  int      `json:"bundle"`
	TP      int      `json:"tp"`
	PCs     []int    `json:"pcs"`
	KPs     []string `json:"kps"`
	Ns      []string `json:"ns"`
	Rates   []string `json:"rates"`
	KVs     []string `json:"kvs"`
	Buckets [][5]int `json:"buckets"` // indices into the five above
	Alphas  values   `json:"alphas"`  // of each bucket
	Samples []int    `json:"samples"` // likewise: rows behind it
	Marks   []int    `json:"marks,omitempty"`
	Default float64  `json:"default"`
	Note    string   `json:"note,omitempty"`
}

// skewData is skew.csv of one degree of one bundle, or some of its rows.
type skewData struct {
	Bundle int    `json:"bundle"`
	TP     int    `json:"tp"`
	Rows   int    `json:"rows"` // in the file
	Tokens []int  `json:"tokens"`
	Mixed  []int  `json:"mixed"` // 1: beside a prefill
	Ratio  values `json:"ratio"` // t_max/t_mean
	Mean   values `json:"mean"`  // t_mean_us as in the file
	Lines  []int  `json:"lines"`
	Marks  []int  `json:"marks,omitempty"` // positions that lint names
}

// addAlphas shows the skew sweep and its fit.
func (p *page) addAlphas(i int, b *perfio.Bundle, found []lint.Finding) {
	v := p.Bundles[i]
	fit := b.Meta.SkewFit()
	for t := range b.TPs {
		tp := &b.TPs[t]
		if len(tp.SkewFit) > 0 {
			p.Data.Alphas = append(p.Data.Alphas, newAlphaData(i, tp, fit, markedLines(found, tp.Degree, "skew_fit"), v))
		}
		if len(tp.Skew) > 0 {
			p.Data.Skews = append(p.Data.Skews, newSkewData(i, tp, markedLines(found, tp.Degree, "skew"), v))
		}
	}
}

// markedLines are the lines of a file that lint names.
func markedLines(found []lint.Finding, degree int, table string) map[int]bool {
	lines := map[int]bool{}
	end := "tp" + strconv.Itoa(degree) + "/" + table + ".csv"
	for _, f := range found {
		for _, place := range f.Places {
			if strings.HasSuffix(place.File, end) && place.Line > 0 {
				lines[place.Line] = true
			}
		}
	}
	return lines
}

func newAlphaData(i int, tp *perfio.TP, fit *perfio.SkewFit, marks map[int]bool, v *bundleView) alphaData {
	a := alphaData{Bundle: i, TP: tp.Degree}
	var axes *perfio.BucketAxes
	if fit != nil {
		axes = fit.AxesFor(tp.Degree)
		if e := fit.Entry(tp.Degree); e != nil {
			a.Default = short(e.AlphaDefault)
		}
	}
	if axes != nil {
		a.Ns, a.Rates, a.KVs, a.KPs = slices.Clone(axes.NLabels), slices.Clone(axes.SkewRateLabels), slices.Clone(axes.KVBigLabels), slices.Clone(axes.KPLabels)
	}
	for _, r := range tp.SkewFit {
		if at, ok := slices.BinarySearch(a.PCs, r.PC); !ok && len(a.PCs) < maxSide {
			a.PCs = slices.Insert(a.PCs, at, r.PC)
		}
	}
	label := func(list *[]string, text string) int {
		n := slices.Index(*list, text)
		if n < 0 && len(*list) < maxSide {
			*list = append(*list, text)
			n = len(*list) - 1
		}
		return n
	}
	for j, r := range tp.SkewFit {
		pc, ok := slices.BinarySearch(a.PCs, r.PC)
		at := [5]int{pc, label(&a.KPs, r.KPLabel), label(&a.Ns, r.NLabel), label(&a.Rates, r.SkewRateLabel), label(&a.KVs, r.KVBigLabel)}
		if !ok || slices.Min(at[:]) < 0 || len(a.Buckets) == maxBuckets {
			v.leaveOut("alphas of buckets beyond %d, or of an axis beyond %d", maxBuckets, maxSide)
			continue
		}
		if marks[j+2] {
			a.Marks = append(a.Marks, len(a.Buckets))
		}
		a.Buckets = append(a.Buckets, at)
		a.Alphas = append(a.Alphas, r.Alpha)
		a.Samples = append(a.Samples, r.NSamples)
	}
	for _, list := range [][]string{a.KPs, a.Ns, a.Rates, a.KVs} {
		cleanAll(list)
	}
	return a
}

func newSkewData(i int, tp *perfio.TP, marks map[int]bool, v *bundleView) skewData {
	s := skewData{Bundle: i, TP: tp.Degree, Rows: len(tp.Skew)}
	at := make([]int, len(tp.Skew))
	for j := range at {
		at[j] = j
	}
	at = thin(at, maxScatter, func(j int) bool { return marks[j+2] })
	for _, j := range at {
		r := &tp.Skew[j]
		if marks[j+2] {
			s.Marks = append(s.Marks, len(s.Lines))
		}
		s.Tokens = append(s.Tokens, r.N*r.KVMean)
		s.Mixed = append(s.Mixed, min(r.PC, 1))
		s.Ratio = append(s.Ratio, short(r.TMaxUS/r.TMeanUS))
		s.Mean = append(s.Mean, short(r.TMeanUS))
		s.Lines = append(s.Lines, j+2)
	}
	return s
}
