package vllmdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// errLate is wrapped by the error of an operation that took too long.
var errLate = fmt.Errorf("no answer within the deadline: %w", context.DeadlineExceeded)

// client talks to one worker process. One goroutine uses it at a time; kill may
// come from any.
type client struct {
	process *process
	frames  chan frame
	quit    chan struct{}
	leave   func() // closes quit, once
	lastID  int64
}

type frame struct {
	reply *reply
	err   error
}

func startClient(spec processSpec) (*client, error) {
	p, err := startProcess(spec)
	if err != nil {
		return nil, err
	}
	c := &client{process: p, frames: make(chan frame), quit: make(chan struct{})}
	c.leave = sync.OnceFunc(func() { close(c.quit) })
	go c.read()
	return c, nil
}

// read hands the worker's lines over until the first that cannot be read.
func (c *client) read() {
	lines := newFrameReader(c.process.replies, MaxFrameBytes)
	for {
		var f frame
		line, err := lines.next()
		if err == nil {
			f.reply, err = decodeReply(line)
		}
		if err != nil {
			f.err = err
		}
		select {
		case c.frames <- f:
		case <-c.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

// kill ends the worker; it may be called more than once.
func (c *client) kill() error {
	err := c.process.kill()
	c.leave()
	return err
}

// stop asks the worker to end and sees to it.
func (c *client) stop(patience time.Duration) error {
	c.lastID++
	_ = c.send(context.Background(), &request{ID: c.lastID, Op: "shutdown"}, patience)
	err := c.process.stop(patience)
	c.leave()
	return err
}

// stopFromOutside is stop while another goroutine may be using the client: the
// end of its requests is all that the worker is told.
func (c *client) stopFromOutside(patience time.Duration) error {
	err := c.process.stop(patience)
	c.leave()
	return err
}

// send writes one request.
func (c *client) send(ctx context.Context, op any, patience time.Duration) error {
	line, err := json.Marshal(op)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if len(line) > MaxFrameBytes {
		return fmt.Errorf("%w: a request of %d bytes is longer than %d", ErrProtocol, len(line), MaxFrameBytes)
	}
	pipe := c.process.requests
	if err := pipe.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("write to the worker: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = pipe.SetWriteDeadline(time.Now()) })
	defer stop()
	if _, err := pipe.Write(line); err != nil {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("the worker does not read its requests: %w", errLate)
		}
		return fmt.Errorf("write to the worker: %w; %s", err, c.fate())
	}
	return nil
}

// receive is the next reply to the request id.
func (c *client) receive(ctx context.Context, id int64, timer *time.Timer) (*reply, error) {
	select {
	case f := <-c.frames:
		switch {
		case f.err != nil:
			return nil, c.lost(f.err)
		case f.reply.ID == nil: // an error about a line that had no id to repeat
			return nil, f.reply.Error
		case *f.reply.ID != id:
			return nil, fmt.Errorf("%w: a reply to request %d, expected one to %d", ErrProtocol, *f.reply.ID, id)
		case f.reply.Error != nil:
			return nil, f.reply.Error
		}
		return f.reply, nil
	case <-timer.C:
		return nil, errLate
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.quit:
		return nil, errClosed
	}
}

// lost explains the end of the replies by the worker's.
func (c *client) lost(err error) error {
	if errors.Is(err, ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if fate := c.fate(); fate != "" {
		return fmt.Errorf("%s before it answered", fate)
	}
	return fmt.Errorf("the worker closed its replies: %w", err)
}

// fate waits a moment for a worker that is about to end.
func (c *client) fate() string {
	select {
	case <-c.process.done:
		return c.process.fate()
	case <-time.After(3 * time.Second):
		return ""
	}
}

// call sends one request and decodes the result into out.
func (c *client) call(ctx context.Context, op operation, patience time.Duration, out any) error {
	h := op.header()
	c.lastID++
	h.ID, h.DeadlineS = c.lastID, patience.Seconds()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	if err := c.send(ctx, op, patience); err != nil {
		return fmt.Errorf("%s: %w", h.Op, err)
	}
	r, err := c.receive(ctx, h.ID, timer)
	if err != nil {
		return fmt.Errorf("%s: %w", h.Op, err)
	}
	if r.Result == nil {
		return fmt.Errorf("%s: %w: found a shot, expected a result", h.Op, ErrProtocol)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(r.Result, out); err != nil {
		return fmt.Errorf("%s: %w: result: %v", h.Op, ErrProtocol, err)
	}
	return nil
}

// measureCall is one measure in progress.
type measureCall struct {
	perShot time.Duration
	// inFlight is the shot that the worker said it began, -1 where it does not.
	inFlight int
	answered []bool
	left     int
}

// patience is how long the next line may take: a worker that measures several
// shots in one go says nothing until the end.
func (m *measureCall) patience() time.Duration {
	return m.perShot + m.perShot/8*time.Duration(max(m.left-1, 0))
}

// lostShot is the shot that the engine was lost to, -1 where that is not known.
func (m *measureCall) lostShot() int {
	if m.inFlight >= 0 && !m.answered[m.inFlight] {
		return m.inFlight
	}
	if m.left == 1 {
		for i, done := range m.answered {
			if !done {
				return i
			}
		}
	}
	return -1
}

// measure sends the request and hands over each shot's answer once.
func (c *client) measure(ctx context.Context, op *measureRequest, m *measureCall, take func(int, *shotReply) error) error {
	n := len(op.Shots)
	m.inFlight, m.answered, m.left = -1, make([]bool, n), n
	c.lastID++
	op.ID, op.Op, op.DeadlineS = c.lastID, "measure", m.patience().Seconds()
	timer := time.NewTimer(m.patience())
	defer timer.Stop()
	if err := c.send(ctx, op, m.patience()); err != nil {
		return fmt.Errorf("measure: %w", err)
	}
	for {
		r, err := c.receive(ctx, op.ID, timer)
		if err != nil {
			return fmt.Errorf("measure: %w", err)
		}
		switch {
		case r.Result != nil && m.left > 0:
			return fmt.Errorf("measure: %w: the end with %d of %d shots unanswered", ErrProtocol, m.left, n)
		case r.Result != nil:
			return nil
		case r.Started != nil:
			if *r.Started < 0 || *r.Started >= n || m.answered[*r.Started] {
				return fmt.Errorf("measure: %w: started: found shot %d of %d, or one that was answered", ErrProtocol, *r.Started, n)
			}
			m.inFlight = *r.Started
		case r.Shot == nil:
			return fmt.Errorf("measure: %w: found the answer to another op, expected a shot", ErrProtocol)
		default:
			index := *r.Shot
			if index < 0 || index >= n || m.answered[index] {
				return fmt.Errorf("measure: %w: found an answer to shot %d of %d, or a second one", ErrProtocol, index, n)
			}
			m.answered[index] = true
			m.left--
			if err := r.shotReply.check(op.Iterations, op.Shots[index].Requests); err != nil {
				r.shotReply = shotReply{Status: "failed", Message: err.Error()}
			}
			if err := take(index, &r.shotReply); err != nil {
				return &yieldError{err}
			}
		}
		timer.Reset(m.patience())
	}
}

// yieldError is an error of the caller's own function: not the worker's fault.
type yieldError struct{ err error }

func (e *yieldError) Error() string { return e.err.Error() }
func (e *yieldError) Unwrap() error { return e.err }
