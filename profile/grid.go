package profile

import (
	"fmt"
	"math"
)

// tokenGrid is T(limit): every count to 15, every 4th to 63, every 16th above,
// and the limit itself. It is nil for a limit below 1.
func tokenGrid(limit int) []int {
	var grid []int
	for n := 1; n <= limit; {
		grid = append(grid, n)
		switch {
		case n < 16:
			n++
		case n < 64:
			n += 4
		default:
			n += 16
		}
	}
	return withLast(grid, limit)
}

// geometricGrid is G(limit, start, factor): 0, then start*factor^k rounded to
// the nearest integer (ties to even), and the limit itself.
func geometricGrid(limit, start int, factor float64) []int {
	if limit < start {
		return []int{0}
	}
	return append([]int{0}, geometricSteps(start, limit, factor)...)
}

// doublingGrid is D(start, limit, factor): geometricGrid without the 0.
func doublingGrid(start, limit int, factor float64) []int {
	if limit < start {
		return []int{limit}
	}
	return geometricSteps(start, limit, factor)
}

func geometricSteps(start, limit int, factor float64) []int {
	var grid []int
	for v := float64(start); v <= float64(limit); v *= factor {
		if n := int(math.RoundToEven(v)); len(grid) == 0 || n > grid[len(grid)-1] {
			grid = append(grid, n)
		}
	}
	return withLast(grid, limit)
}

// powersOfTwo lists 1, 2, 4, ... up to limit.
func powersOfTwo(limit int) []int {
	var grid []int
	for n := 1; n <= limit; n *= 2 {
		grid = append(grid, n)
	}
	return grid
}

// everyCount lists 1 to limit.
func everyCount(limit int) []int {
	grid := make([]int, 0, max(limit, 0))
	for n := 1; n <= limit; n++ {
		grid = append(grid, n)
	}
	return grid
}

// extended is a fixed list of grid values, doubled on from its last one for
// limits beyond covered, and cut at the limit.
func extended(values []int, covered, limit int) []int {
	var grid []int
	for _, v := range values {
		if v <= limit {
			grid = append(grid, v)
		}
	}
	if limit <= covered {
		return grid
	}
	for v := 2 * values[len(values)-1]; v < limit; v *= 2 {
		grid = append(grid, v)
	}
	return withLast(grid, limit)
}

func withLast(grid []int, limit int) []int {
	if limit > 0 && (len(grid) == 0 || grid[len(grid)-1] < limit) {
		grid = append(grid, limit)
	}
	return grid
}

// checkFactor refuses factors under which a geometric grid would not end, or
// would have more points than anybody means.
func checkFactor(name string, factor float64) error {
	if !(factor >= 1.01) || factor > 1e6 {
		return fmt.Errorf("%s: found %v, expected a factor from 1.01 to 1e6", name, factor)
	}
	return nil
}
