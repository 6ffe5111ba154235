package stepmodel

// AtDepth is what the terms are for a model of another depth. With terms of two
// depths the part per layer is known; with one, launching and the forward's
// fixed part are taken to grow with the layers.
func AtDepth(byDepth []Terms, layers int) (t Terms, measured bool) {
	for _, have := range byDepth {
		if have.Layers == layers {
			return have, true
		}
	}
	deepest, other := byDepth[0], byDepth[0]
	for _, have := range byDepth {
		if have.Layers > deepest.Layers {
			deepest = have
		}
		if have.Layers < other.Layers {
			other = have
		}
	}
	t = deepest
	t.Layers = layers
	t.Classes = make(map[string]Class, len(deepest.Classes))
	for name, c := range deepest.Classes {
		o, both := other.Classes[name]
		if !both || other.Layers == deepest.Layers {
			o = Class{}
			o.LagUS = c.LagUS
			c.LaunchUS = along(0, o.LaunchUS, deepest.Layers, c.LaunchUS, layers)
			c.OffsetUS = along(0, o.OffsetUS, deepest.Layers, c.OffsetUS, layers)
		} else {
			c.LaunchUS = along(other.Layers, o.LaunchUS, deepest.Layers, c.LaunchUS, layers)
			c.OffsetUS = along(other.Layers, o.OffsetUS, deepest.Layers, c.OffsetUS, layers)
		}
		t.Classes[name] = c
	}
	return t, false
}

// along is the straight line through two points, not below 0.
func along(x0 int, y0 float64, x1 int, y1 float64, x int) float64 {
	return max(0, y0+(y1-y0)*float64(x-x0)/float64(x1-x0))
}
