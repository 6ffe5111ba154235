package main

import (
	"errors"
	"fmt"
)

// The exit statuses that scripts rely on.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitPartial = 3 // interrupted or with failed shots; resumable
	exitDrift   = 4 // the environment is not the one of earlier measurements
	// exitExceeded is serve-check's: an error is larger than it may be.
	exitExceeded = 5
)

// exitError is an error that decides the exit status. A nil Err is a status
// whose reasons have been printed already.
type exitError struct {
	Status int
	Err    error
}

func (e *exitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Status)
	}
	return e.Err.Error()
}

func (e *exitError) Unwrap() error { return e.Err }

func usageErrorf(format string, args ...any) error {
	return &exitError{Status: exitUsage, Err: fmt.Errorf(format, args...)}
}

// exitStatus is the status that err stands for; started tells errors of a
// command from those of its command line.
func exitStatus(err error, started bool) int {
	var exit *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.Status
	case !started:
		return exitUsage
	}
	return exitFailure
}
