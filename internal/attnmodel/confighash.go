package attnmodel

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
)

// Hash is the SHA-256, in hexadecimal, of all that a calibration depends on:
// geometry, kernel and samples.
func (c *Config) Hash() string {
	h := sha256.New()
	w := bufio.NewWriterSize(h, 1<<16)
	var buf []byte
	put := func(v ...int) {
		buf = buf[:0]
		for _, x := range v {
			buf = binary.AppendVarint(buf, int64(x))
		}
		w.Write(buf) // a hash takes everything
	}
	number := func(x float64) {
		buf = binary.LittleEndian.AppendUint64(buf[:0], math.Float64bits(x))
		w.Write(buf)
	}
	flag := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	g := c.Geometry
	put(g.QueryHeads, g.KVHeads, g.SMs, flag(g.ByteCache), int(c.Kernel), len(c.Samples))
	for i := range c.Samples {
		s := &c.Samples[i]
		put(flag(s.Skew), len(s.Runs))
		for _, r := range s.Runs {
			put(r.New, r.History, r.Count)
		}
		number(s.TimeUS)
		number(s.Weight)
	}
	w.Flush()
	return hex.EncodeToString(h.Sum(nil))
}
