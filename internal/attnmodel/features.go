package attnmodel

import "math"

// featureCount is the number of coordinates of a batch in a residual field.
const featureCount = 7

// features places a batch among others: what its chunks and its decodes amount
// to, on logarithmic axes, and how unlike one another they are. Batches that
// are alike to a kernel are close.
type features [featureCount]float64

func featuresOf(runs []Run) features {
	var tokens, history, chunks float64 // of chunks
	var n, sum, square, longest float64 // of decodes
	for _, r := range runs {
		c, h := float64(r.Count), float64(r.History)
		if r.New > 1 {
			q := float64(r.New)
			tokens += c * q
			history += c * q * h
			chunks += c
			continue
		}
		n += c
		sum += c * h
		square += c * h * h
		longest = max(longest, h)
	}
	var f features
	f[0] = math.Log(tokens + 16)
	if chunks > 0 {
		f[1] = math.Log(history/tokens + 64)
		f[2] = math.Log(chunks)
	} else {
		f[1] = math.Log(64)
	}
	f[3] = math.Log(n + 1)
	f[4] = math.Log(64)
	if n > 0 {
		mean := sum / n
		f[4] = math.Log(mean + 64)
		f[5] = math.Log((longest + 64) / (mean + 64))
		f[6] = math.Sqrt(max(0, square/n-mean*mean)) / (mean + 64)
	}
	return f
}
