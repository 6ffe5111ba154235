package profile

import (
	"context"
	"errors"
	"math"
	"slices"
)

// anchorSamples is the least number of samples of an anchor, whose noise
// decides what is measured again.
const anchorSamples = 5

// measureAnchor fires the anchor and records it. An engine that is lost to it
// is left for the caller to boot again.
func (p *pass) measureAnchor(ctx context.Context) error {
	d := p.degree
	t := d.anchor
	options := MeasureOptions{
		Warmup: p.Warmup, Iterations: max(p.Iterations, anchorSamples), Layers: t.layers,
		FlushL2: p.FlushL2, Deadline: p.Deadline,
	}
	var entry *record
	err := p.call(ctx, []Shot{t.shot}, options, func(res Result) error {
		problem := res.Message
		if res.Status == OK {
			problem = checkResult(t, res)
		}
		if problem != "" || res.Status != OK {
			return errors.New("the anchor failed: " + problem)
		}
		entry = &record{
			Kind: recordAnchor, TimeMS: p.Now().UnixMilli(), Env: d.env, TP: d.tp, Scope: t.scope, Shape: t.shape,
			Status: OK, Telemetry: res.Telemetry, Layers: keptLayers(t, res),
		}
		return nil
	})
	if entry != nil {
		if entry.Telemetry == nil && p.ReadTelemetry != nil {
			// What the device says of itself is an addition; its absence was told once.
			entry.Telemetry, _ = p.ReadTelemetry()
		}
		d.last, d.anchorFailed = entry, 0
		if err := p.journal.append(entry); err != nil {
			return err
		}
	}
	if errors.Is(err, ErrStopped) || ctx.Err() != nil || p.journal.err != nil {
		d.up = false
		return errors.Join(err, ctx.Err(), p.journal.err)
	}
	if err != nil {
		d.up = false
		d.anchorFailed++
		if d.anchorFailed == 3 {
			p.warn("the anchor %s failed three times; the run goes on without: %v", t.shape, err)
			d.anchor = nil
		}
	}
	return nil
}

// closeBlock measures the anchor after a block and, if it moved, has the block
// measured again.
func (p *pass) closeBlock(ctx context.Context) ([]*task, error) {
	d := p.degree
	if d.anchor == nil || d.last == nil || !d.up || len(p.inBlock) == 0 {
		return nil, nil
	}
	before := d.last
	if err := p.measureAnchor(ctx); err != nil || !d.up {
		return nil, err
	}
	moved := anchorRatio(d.last, before)
	if math.Abs(moved-1) <= p.DriftThreshold || p.MaxRedo < 0 {
		return nil, nil
	}
	// The block counts as a whole, and so does its bound: shots of earlier blocks
	// that were measured again stand among new ones where an engine was lost.
	var redo []*task
	bounded := true
	for _, t := range p.inBlock {
		if !slices.Contains(redo, t) {
			redo = append(redo, t)
		}
		bounded = bounded && t.redos >= p.MaxRedo
	}
	if bounded {
		return nil, nil // bounded: the correction by the anchors has to do
	}
	// What was measured in the block counts no more from here on; all of the
	// block, so that its shots keep to one state of the device.
	if err := errors.Join(p.commit(), p.journal.append(&record{
		Kind: recordBlock, TimeMS: p.Now().UnixMilli(), Env: d.env, TP: d.tp, Block: p.block, Redone: true,
	})); err != nil {
		return nil, err
	}
	for _, t := range slices.Compact(slices.Clone(p.inBlock)) {
		wasDone := p.missing(t) == 0
		p.count(t)
		if wasDone && p.missing(t) > 0 {
			p.done--
		}
	}
	again := redo[:0]
	for _, t := range redo {
		if p.missing(t) > 0 {
			t.redos++
			again = append(again, t)
		}
	}
	p.report.Redone += len(again)
	p.emit(Event{Kind: EventRedo, Category: p.category, Done: p.done, Total: len(again)})
	return again, nil
}

// anchorRatio is the geometric mean, over the layers, of how much longer the
// anchor took in a than in b.
func anchorRatio(a, b *record) float64 {
	sum, n := 0.0, 0
	for i := range a.Layers {
		for j := range b.Layers {
			if a.Layers[i].Layer == b.Layers[j].Layer {
				x := median(slices.Clone(a.Layers[i].US)) / median(slices.Clone(b.Layers[j].US))
				sum += math.Log(x)
				n++
			}
		}
	}
	if n == 0 {
		return 1
	}
	if sum == 0 {
		return 1 // exactly, so that nothing is changed
	}
	return math.Exp(sum / float64(n))
}
