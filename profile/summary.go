package profile

// Summary counts a plan. Its JSON is what `profile plan --json` prints.
type Summary struct {
	Categories []CategorySummary `json:"categories"`
	// TotalShots counts every batch, UniqueShots the different ones in their tp.
	TotalShots  int `json:"total_shots"`
	UniqueShots int `json:"unique_shots"`
	// MeasuredShots is how many are fired: the different ones where the plan
	// shares repeats, else all.
	MeasuredShots    int     `json:"measured_shots"`
	EstimatedSeconds float64 `json:"estimated_seconds,omitempty"`
	// EstimateIsGuess: no driver's pace is known, and the estimate goes by what
	// one H200 did.
	EstimateIsGuess bool `json:"estimate_is_guess,omitempty"`
}

// CategorySummary counts one category of one tp.
type CategorySummary struct {
	TP       int      `json:"tp"`
	Category Category `json:"category"`
	Shots    int      `json:"shots"`
	// UniqueShots are those that no earlier shot of the tp measures too.
	UniqueShots int      `json:"unique_shots"`
	Cases       int      `json:"cases,omitempty"`
	Layers      []string `json:"layers,omitempty"`
}

// guessedPace is what a worker on an H200 reached with 1 warm-up and 3 timed
// runs of each shot.
const guessedPace = 36.7

// Summarize counts the plan; pace is the driver's in shots per second, 0 where
// none is known.
func (p *Plan) Summarize(pace float64) Summary {
	summary := Summary{Categories: []CategorySummary{}, EstimateIsGuess: pace <= 0}
	for _, tp := range p.TPs {
		seen := make(map[string]bool)
		for _, c := range tp.Categories {
			s := CategorySummary{TP: tp.TP, Category: c.Category, Shots: len(c.Shots), Cases: len(c.Cases), Layers: c.Layers}
			for _, shot := range c.Shots {
				shape := shot.Shape()
				if !c.Category.Shares() {
					shape = string(c.Category) + " " + shape
				}
				if !seen[shape] {
					seen[shape] = true
					s.UniqueShots++
				}
			}
			summary.TotalShots += s.Shots
			summary.UniqueShots += s.UniqueShots
			summary.Categories = append(summary.Categories, s)
		}
	}
	summary.MeasuredShots = summary.TotalShots
	if p.Options.ShareRepeats {
		summary.MeasuredShots = summary.UniqueShots
	}
	if pace <= 0 {
		pace = guessedPace
	}
	summary.EstimatedSeconds = float64(summary.MeasuredShots) / pace
	return summary
}
