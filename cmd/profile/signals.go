package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// askedToEnd is whether and how much the program is asked to end: soon at the
// first signal or at the end of the budget, at once at the second signal.
type askedToEnd struct {
	soon, atOnce context.Context
	release      func()
}

// watchSignals watches until release. What ends is said to end after unit.
func watchSignals(parent context.Context, budget time.Duration, show progress, what, unit string) *askedToEnd {
	atOnce, cancel := context.WithCancel(parent)
	soon, ask := context.WithCancel(parent)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGUSR1)
	var timer <-chan time.Time
	if budget > 0 {
		timer = time.After(budget)
	}
	done := make(chan struct{})
	go func() {
		asked := false
		for {
			select {
			case <-done:
				return
			case <-timer:
				show.note(fmt.Sprintf("the budget is spent: %s ends after %s", what, unit))
				ask()
			case s := <-signals:
				if s == syscall.SIGUSR1 && asked {
					continue // whoever forwards signals may send several for one
				}
				if asked {
					cancel()
					// Should the driver not let go, the process leaves all the same:
					// what is measured is on disk.
					time.AfterFunc(10*time.Second, func() { os.Exit(exitPartial) })
					continue
				}
				asked = asked || s != syscall.SIGUSR1
				show.note(fmt.Sprintf("%v: %s ends after %s; a second signal leaves at once", s, what, unit))
				ask()
			}
		}
	}()
	return &askedToEnd{soon: soon, atOnce: atOnce, release: sync.OnceFunc(func() {
		signal.Stop(signals)
		close(done)
		cancel()
		ask()
	})}
}

// before is the error of what was given up because the program was asked to end,
// and any other error as it is.
func (a *askedToEnd) before(err error, what string) error {
	if a.soon.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	return &exitError{Status: exitPartial, Err: fmt.Errorf("ended before %s; the same command starts it again", what)}
}
