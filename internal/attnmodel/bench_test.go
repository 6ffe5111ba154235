package attnmodel

import (
	"math/rand/v2"
	"testing"
)

func BenchmarkTimeUS(b *testing.B) {
	g := Geometry{QueryHeads: 32, KVHeads: 8, SMs: 188}
	rnd := rand.New(rand.NewPCG(1, 1))
	var grid [][]Run
	for _, pc := range []int{0, 16, 128, 512, 2048} {
		for _, kp := range []int{0, 512, 4096, 16384} {
			for _, n := range []int{1, 8, 32, 128, 256} {
				for _, kd := range []int{16, 128, 1024, 8192} {
					grid = append(grid, GridRuns(nil, pc, kp, n, kd, true))
				}
			}
		}
	}
	var decode, mixed [][]Run
	for range 50 {
		decode = append(decode, unlike(rnd, 64, 0))
		mixed = append(mixed, unlike(rnd, 63, 700))
	}
	for _, c := range []struct {
		name    string
		batches [][]Run
	}{{"grid", grid}, {"decode64", decode}, {"mixed64", mixed}} {
		for _, m := range []struct {
			name  string
			model model
		}{{"fa2", NewFA2(g, FA2Defaults())}, {"fa3", NewFA3(g, FA3Defaults())}} {
			b.Run("kernel="+m.name+"/batches="+c.name, func(b *testing.B) {
				i := 0
				for b.Loop() {
					m.model.TimeUS(c.batches[i%len(c.batches)])
					i++
				}
			})
		}
	}
}
