package profile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

var (
	errDeadline  = errors.New("no answer within the deadline")
	errAbandoned = errors.New("the run no longer waits for this answer")
)

// leaveTime is how long a driver gets to return from a cancelled call, and then
// from a Close, before it is left behind.
const leaveTime = 5 * time.Second

// call is one Measure with a deadline: results are handed over to this
// goroutine, and a driver that neither answers nor returns is left behind.
func (r *runner) call(ctx context.Context, shots []Shot, options MeasureOptions, take func(Result) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan Result)
	answer := make(chan error)
	done := make(chan error, 1)
	abandoned := make(chan struct{})
	abandon := sync.OnceFunc(func() { close(abandoned) })
	defer abandon()
	driver := r.driver
	go func() {
		done <- driver.Measure(ctx, shots, options, func(res Result) error {
			select {
			case results <- res:
			case <-abandoned:
				return errAbandoned
			}
			select {
			case err := <-answer:
				return err
			case <-abandoned:
				return errAbandoned
			}
		})
	}()

	// The driver watches each shot's deadline itself; this is for one that does not.
	patience := options.Deadline + options.Deadline/8*time.Duration(len(shots)) + time.Second
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var verdict error // what take or the deadline said first
	for {
		select {
		case res := <-results:
			err := verdict
			if err == nil {
				err = take(res)
			}
			if err == nil && r.stopping() {
				err = ErrStopped
			}
			if err != nil {
				verdict = err
			}
			answer <- err
			timer.Reset(patience)
			if verdict != nil {
				timer.Reset(leaveTime)
			}
		case err := <-done:
			if verdict != nil {
				return verdict
			}
			return err
		case <-ctx.Done():
			abandon()
			return errors.Join(ctx.Err(), r.leave(driver, done))
		case <-timer.C:
			if verdict == nil {
				verdict = &EngineLostError{Index: -1, Err: fmt.Errorf("%w of %v", errDeadline, options.Deadline)}
			}
			cancel()
			abandon()
			return errors.Join(verdict, r.leave(driver, done))
		}
	}
}

// leave waits a little for a cancelled Measure, then for the driver's end.
func (r *runner) leave(driver Driver, done <-chan error) error {
	select {
	case <-done:
		return nil
	case <-time.After(leaveTime):
	}
	closed := make(chan error, 1)
	go func() { closed <- driver.Close() }()
	select {
	case err := <-closed:
		r.driver = nil
		return err
	case <-time.After(leaveTime):
	}
	r.driver = nil
	return errors.New("the driver does not end; it is left behind")
}
