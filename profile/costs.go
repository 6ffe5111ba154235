package profile

// Costs estimate how long shots take to measure, in seconds. They balance
// shards and say how long a plan takes; no result depends on them.
type Costs struct {
	BootSeconds float64 `json:"boot_seconds"` // of an engine, once for each degree
	ShotSeconds float64 `json:"shot_seconds"` // of a shot, however often it runs
	RunSeconds  float64 `json:"run_seconds"`  // of each run, warm-ups among them
	// TokenSeconds is for each new token of a run, HistorySeconds for each token
	// of KV history that it reads.
	TokenSeconds   float64 `json:"token_seconds"`
	HistorySeconds float64 `json:"history_seconds"`
}

// guessedCosts give what a sweep of Llama-3.1-8B with two blocks on an H200 was
// measured to take, 37 shots a second with one warm-up and three timed runs, and
// a boot in the middle of the 20 to 51 s that were seen. How a shot's time divides
// is an estimate: most of it is the host's work, whatever the batch; tokens and
// history by the device's rates.
var guessedCosts = Costs{
	BootSeconds: 40, ShotSeconds: 4e-3, RunSeconds: 5e-3, TokenSeconds: 1.5e-6, HistorySeconds: 2e-9,
}

// CostsAt are the costs with a driver whose pace is known, in shots per second;
// 0 is not known, and gives what one H200 took.
func CostsAt(pace float64) Costs {
	if pace > 0 {
		return Costs{ShotSeconds: 1 / pace}
	}
	return guessedCosts
}

// Shot is the time of one shot with a number of runs.
func (c Costs) Shot(s *Shot, runs int) float64 {
	tokens, history := 0, 0
	for _, g := range s.Groups {
		tokens += g.Count * g.NewTokens
		history += g.Count * g.KVHistory
	}
	return c.ShotSeconds + float64(runs)*(c.RunSeconds+c.TokenSeconds*float64(tokens)+c.HistorySeconds*float64(history))
}
