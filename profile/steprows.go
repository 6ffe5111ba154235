package profile

import (
	"cmp"
	"math"
	"slices"

	"github.com/layerprof/layerprof/perfio"
)

// What of a run is kept: its first steps and its last one are not those of a
// server at work. Steps of the same decodes make rows of at most maxJoined.
const (
	leaveFirst = 2
	maxJoined  = 8
)

// StepRows makes the rows of step.csv of one run's steps, in the order in which
// they were scheduled. The first two steps, the last one, and steps after which
// the engine had nothing left to do are left out. Steps that follow one another
// with the same decodes, with nobody coming or going in them nor in the next,
// join into rows of medians. Every record must pass its Check.
func StepRows(mode string, layers int, steps []StepRecord) []perfio.StepRow {
	var rows []perfio.StepRow
	for i := leaveFirst; i < len(steps)-1; {
		if idleAfter(steps, i) {
			i++
			continue
		}
		n := joined(steps, i)
		rows = append(rows, stepRow(mode, layers, steps, i, n))
		i += n
	}
	return rows
}

// idleAfter: none of the next step's requests were there before it.
func idleAfter(steps []StepRecord, i int) bool {
	next := &steps[i+1]
	return next.Admitted == len(next.Requests)
}

// joined is how many steps from i on make one row.
func joined(steps []StepRecord, i int) int {
	alike := func(j int) bool { // the row may hold step j, whose next one it must know
		s, next := &steps[j], &steps[j+1]
		return s.Admitted == 0 && s.Finished == 0 && next.Admitted == 0 && next.Finished == 0
	}
	first := &steps[i]
	if !alike(i) || slices.ContainsFunc(first.Requests, func(q perfio.Request) bool { return !isDecode(q) }) {
		return 1
	}
	n := 1
	for ; n < maxJoined && i+n < len(steps)-1; n++ {
		s := &steps[i+n]
		if !alike(i+n) || !s.follows(&steps[i+n-1]) || s.PaddedTokens != first.PaddedTokens || s.Graph != first.Graph {
			break
		}
	}
	return n
}

func isDecode(q perfio.Request) bool { return q.NewTokens == 1 && q.KVHistory > 0 }

func stepRow(mode string, layers int, steps []StepRecord, i, n int) perfio.StepRow {
	middle := &steps[i+n/2]
	row := perfio.StepRow{
		Mode: mode, Layers: layers, Graph: middle.Graph, PaddedTokens: middle.PaddedTokens,
		Admitted: middle.Admitted, Finished: middle.Finished, Steps: n,
	}
	sum := 0
	for _, q := range middle.Requests {
		if !isDecode(q) {
			row.NPrefill++
			row.PrefillChunk += q.NewTokens
			row.KVPrefill += q.KVHistory
			continue
		}
		if row.NDecode == 0 {
			row.KVDecodeMin = q.KVHistory
		}
		row.NDecode++
		sum += q.KVHistory
		row.KVDecodeMin, row.KVDecodeMax = min(row.KVDecodeMin, q.KVHistory), max(row.KVDecodeMax, q.KVHistory)
	}
	if row.NDecode > 0 {
		row.KVDecodeMean = float64(sum) / float64(row.NDecode)
	}
	times := make([]stepTimes, n)
	for k := range times {
		times[k] = timesOf(steps, i+k)
	}
	medianOf := func(part int) float64 {
		var us []float64
		for _, t := range times {
			if !math.IsNaN(t[part]) {
				us = append(us, t[part])
			}
		}
		if len(us) == 0 {
			return math.NaN()
		}
		return median(us)
	}
	for part, us := range row.TimesUS() {
		*us = medianOf(part)
	}
	least := slices.MinFunc(times, func(a, b stepTimes) int { return cmp.Compare(a[partStep], b[partStep]) })[partStep]
	most := slices.MaxFunc(times, func(a, b stepTimes) int { return cmp.Compare(a[partStep], b[partStep]) })[partStep]
	if row.StepUS > 0 {
		row.Spread = (most - least) / row.StepUS
	}
	return row
}

// stepTimes are one step's times in the order of step.csv.
type stepTimes [15]float64

const (
	partWait    = 6
	partUpdate  = 7
	partReturn  = 8
	partBetween = 9
	partStep    = 10
	partDevice  = 11
	partPeriod  = 14
)

// timesOf takes step i's period apart, from its scheduler call to that of the
// next one. Which step's output the engine takes up in it depends on the mode:
// without async scheduling its own, else that of the step before.
func timesOf(steps []StepRecord, i int) stepTimes {
	m, end := steps[i].HostMarksUS, steps[i+1].HostMarksUS[MarkSchedule]
	var t stepTimes
	for part := range partWait {
		t[part] = m[part+1] - m[part]
	}
	t[partStep] = end - m[MarkSchedule]
	t[partWait], t[partUpdate], t[partReturn] = math.NaN(), math.NaN(), math.NaN()
	returned := m[MarkSampled]
	updates := 0
	// An output is taken up at most a few steps after its own.
	for j := max(0, i-3); j <= i; j++ {
		o := steps[j].HostMarksUS
		if update := o[MarkUpdate]; update > m[MarkSchedule] && update < end {
			updates++
			t[partWait], t[partUpdate], t[partReturn] = update-m[MarkSampled], o[MarkUpdated]-update, o[MarkReturned]-o[MarkUpdated]
		}
		if r := o[MarkReturned]; r > m[MarkSchedule] && r < end && !(r <= returned) {
			returned = r
		}
	}
	if updates > 1 || t[partWait] < 0 {
		// Not the order of parts that the columns are about.
		t[partWait], t[partUpdate], t[partReturn] = math.NaN(), math.NaN(), math.NaN()
	}
	t[partBetween] = end - returned
	for k := partDevice; k <= partPeriod; k++ {
		t[k] = math.NaN()
	}
	if d := steps[i].DeviceMarksUS; len(d) == deviceMarks {
		for k := range deviceMarks - 1 {
			t[partDevice+k] = d[k+1] - d[k]
		}
		if i > 0 && len(steps[i-1].DeviceMarksUS) == deviceMarks && !idleAfter(steps, i-1) {
			t[partPeriod] = d[DeviceSampled] - steps[i-1].DeviceMarksUS[DeviceSampled]
		}
	}
	for part := range t {
		if t[part] < 0 {
			t[part] = math.NaN() // clocks that contradict one another say nothing
		}
	}
	return t
}
