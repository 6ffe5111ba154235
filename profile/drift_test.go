package profile

import (
	"math"
	"math/rand/v2"
	"testing"
)

// driftOf makes a model of anchors at the levels given, a block of shots
// between every two.
func driftOf(levels []float64) (*driftModel, []*blockState) {
	anchors := make([]*record, len(levels))
	for i, us := range levels {
		anchors[i] = &record{Kind: recordAnchor, Env: "e", TP: 1, Shape: "1x1@1", Layers: []layerRecord{{Layer: "attention", US: []float64{us}}}}
	}
	x := &journalIndex{anchors: anchors, blocks: map[blockKey]*blockState{}}
	var blocks []*blockState
	for i := 1; i < len(anchors); i++ {
		b := &blockState{before: anchors[i-1], after: anchors[i]}
		x.blocks[blockKey{block: i}] = b
		blocks = append(blocks, b)
	}
	return newDriftModel(x, []string{"e"}, 1, 0.01), blocks
}

// Anchors that only scatter must not move the shots between them: on an H200
// their noise of 0.6% went into the shots and made repeats differ by half more.
func TestDriftLeavesNoiseAlone(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	levels := make([]float64, 400)
	for i := range levels {
		levels[i] = 100 * math.Exp(0.006*random.NormFloat64())
	}
	m, blocks := driftOf(levels)
	if m.Noise < 0.005 || m.Noise > 0.007 {
		t.Errorf("noise %.4f, want about 0.006", m.Noise)
	}
	corrected := 0
	for i := range blocks {
		if m.factor(blockKey{block: i + 1}) != 1 {
			corrected++
		}
	}
	if corrected > len(blocks)/50 {
		t.Errorf("%d of %d blocks corrected, though the device stayed as it was", corrected, len(blocks))
	}
}

// Two states 4% apart are told from the same noise.
func TestDriftSeesStatesThroughNoise(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	levels := make([]float64, 400)
	for i := range levels {
		state := 1.0
		if i/40%2 == 1 {
			state = 1.04
		}
		levels[i] = 100 * state * math.Exp(0.006*random.NormFloat64())
	}
	m, blocks := driftOf(levels)
	worst := 0
	for i := range blocks {
		if (i+1)%40 == 0 {
			continue // its anchors stand in different states
		}
		want := 1.0
		if i/40%2 == 1 {
			want = 1.04
		}
		if math.Abs(m.factor(blockKey{block: i + 1})/want-1) > 0.02 {
			worst++
		}
	}
	if worst > len(blocks)/50 {
		t.Errorf("%d of %d blocks are off by more than 2%%", worst, len(blocks))
	}
}
