package profile

import (
	"maps"
	"slices"
)

// measureKey identifies a measurement but for its layer, which the records
// under it name.
type measureKey struct {
	env   string
	tp    int
	scope string // "" for one that is shared
	shape string
}

// blockKey identifies a block of shots in all of a journal's files.
type blockKey struct {
	shard int
	block int
}

// blockState is what the records say of a block.
type blockState struct {
	before, after *record // its anchors; nil where there was none
	redone        bool
}

// stored is a shot's record and where it stands.
type stored struct {
	*record
	block blockKey
}

// journalIndex is what the records of a journal amount to.
type journalIndex struct {
	shots  map[measureKey][]stored
	failed map[measureKey]*record // the last failure since the last success
	blocks map[blockKey]*blockState
	// environments holds the fingerprints by id, in the order of their ids'
	// first appearance for a degree in current.
	environments map[string]map[string]string
	current      map[int]string      // by degree: the environment booted last
	accepts      map[string][]string // ids whose measurements count for the key's
	shards       map[int]*shardState
	anchors      []*record
	anchorFiles  []int // the file of each anchor
	own          int
	shotRecords  int
	imports      bool // rows of earlier tables are among the shots

	serving    map[servingKey]*record // the last boot
	steps      map[stepsKey]*record
	stepsOrder []stepsKey // as they first came
}

// shardState follows one file's records in order.
type shardState struct {
	anchor *record // the last anchor since the last boot
	open   *blockState
	last   int    // the highest block number
	place  string // where it was booted last
}

func newJournalIndex() journalIndex {
	return journalIndex{
		shots:        make(map[measureKey][]stored),
		failed:       make(map[measureKey]*record),
		blocks:       make(map[blockKey]*blockState),
		environments: make(map[string]map[string]string),
		current:      make(map[int]string),
		accepts:      make(map[string][]string),
		shards:       make(map[int]*shardState),
	}
}

func (x *journalIndex) shard(n int) *shardState {
	s := x.shards[n]
	if s == nil {
		s = new(shardState)
		x.shards[n] = s
	}
	return s
}

func (x *journalIndex) block(k blockKey) *blockState {
	b := x.blocks[k]
	if b == nil {
		b = new(blockState)
		x.blocks[k] = b
	}
	return b
}

// add takes the next record of a file into the index.
func (x *journalIndex) add(r *record, shard int) {
	s := x.shard(shard)
	switch r.Kind {
	case recordEnvironment:
		// A boot: anchors before it say nothing about blocks after it.
		s.anchor, s.open = nil, nil
		x.current[r.TP] = r.Env
		s.place = r.Place
		if r.Fingerprint != nil {
			x.environments[r.Env] = r.Fingerprint
		}
	case recordAccept:
		x.accepts[r.Env] = append(x.accepts[r.Env], r.Accepts)
	case recordAnchor:
		if s.open != nil {
			s.open.after = r
			s.open = nil
		}
		s.anchor = r
		x.anchors = append(x.anchors, r)
		x.anchorFiles = append(x.anchorFiles, shard)
	case recordBlock:
		x.block(blockKey{shard, r.Block}).redone = r.Redone
	case recordServing, recordSteps:
		x.addSteps(r)
	case recordShot:
		x.addShot(r, shard, s)
	}
}

func (x *journalIndex) addShot(r *record, shard int, s *shardState) {
	k := measureKey{r.Env, r.TP, r.Scope, r.Shape}
	b := blockKey{shard, r.Block}
	if r.Block > 0 {
		state := x.block(b)
		if state.before == nil {
			state.before = s.anchor
		}
		s.open = state
		s.last = max(s.last, r.Block)
	}
	if r.Status != OK {
		x.failed[k] = r
		return
	}
	delete(x.failed, k)
	x.shots[k] = append(x.shots[k], stored{r, b})
	x.shotRecords++
	x.imports = x.imports || r.Imported
}

// environmentsFor lists the ids whose measurements count under env, env first.
func (x *journalIndex) environmentsFor(env string) []string {
	ids := []string{env}
	for i := 0; i < len(ids); i++ {
		for _, old := range x.accepts[ids[i]] {
			if !slices.Contains(ids, old) {
				ids = append(ids, old)
			}
		}
	}
	return ids
}

// related lists the ids whose measurements count together with env's, env first:
// those that it accepts, those that accept it, and so on.
func (x *journalIndex) related(env string) []string {
	ids := []string{env}
	add := func(id string) {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for i := 0; i < len(ids); i++ {
		for _, old := range x.accepts[ids[i]] {
			add(old)
		}
		for _, id := range slices.Sorted(maps.Keys(x.accepts)) {
			if slices.Contains(x.accepts[id], ids[i]) {
				add(id)
			}
		}
	}
	return ids
}

// each hands the sound records of a measurement to f: the shot's own, and those
// of its shape that are shared, where share says that they count.
func (x *journalIndex) each(envs []string, tp int, scope, shape string, share bool, f func(stored)) {
	visit := func(k measureKey) {
		for _, s := range x.shots[k] {
			if b := x.blocks[s.block]; b == nil || !b.redone {
				f(s)
			}
		}
	}
	for _, env := range envs {
		visit(measureKey{env, tp, scope, shape})
		if share && scope != "" {
			visit(measureKey{env, tp, "", shape})
		}
	}
}

// measuredUnder reports whether a degree has a shot measured in an environment.
func (x *journalIndex) measuredUnder(env string, tp int) bool {
	for k := range x.shots {
		if k.env == env && k.tp == tp {
			return true
		}
	}
	return false
}

// measuredElsewhere reports whether a degree has a shot measured in an
// environment other than those given.
func (x *journalIndex) measuredElsewhere(envs []string, tp int) bool {
	for k := range x.shots {
		if k.tp == tp && !slices.Contains(envs, k.env) {
			return true
		}
	}
	return false
}
