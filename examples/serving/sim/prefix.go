package sim

// prefixCache keeps the KV blocks of shared prompt beginnings. Only whole
// blocks are shared, and they are freed, oldest first, when the engine runs out
// of others and no running request uses them.
type prefixCache struct {
	entries map[string]*prefixEntry
	order   []*prefixEntry // by first use
}

type prefixEntry struct {
	name   string
	blocks int
	users  int
}

// hit gives the number of cached blocks that the sequence starts with; the last
// token of a prompt is always computed. The sequence uses them until leave.
func (c *prefixCache) hit(q *sequence, blockSize int) int {
	e := c.entries[q.request.Prefix]
	if e == nil {
		return 0
	}
	blocks := min(e.blocks, q.request.PrefixTokens/blockSize, (q.tokens-1)/blockSize)
	if blocks > 0 {
		e.users++
	}
	return blocks
}

// leave ends the sequence's use and gives the number of its own blocks that
// stay in the cache.
func (c *prefixCache) leave(q *sequence, blockSize int) int {
	e := c.entries[q.request.Prefix]
	if e == nil {
		e = &prefixEntry{name: q.request.Prefix}
		c.entries[e.name] = e
		c.order = append(c.order, e)
	}
	if q.cached > 0 {
		e.users--
	}
	whole := min(q.request.PrefixTokens, q.computed) / blockSize
	kept := max(0, whole-max(e.blocks, q.cached))
	e.blocks += kept
	return kept
}

// evict frees cached blocks that nobody uses, at least want where there are so
// many, and gives their number.
func (c *prefixCache) evict(want int) int {
	freed := 0
	for _, e := range c.order {
		if freed >= want {
			break
		}
		if e.users == 0 {
			freed += e.blocks
			e.blocks = 0
		}
	}
	return freed
}
