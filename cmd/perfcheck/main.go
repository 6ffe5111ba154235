// Perfcheck checks, explains and compares bundles of measured layer latencies.
//
//	perfcheck validate PATH…          every problem of the bundles below PATH
//	perfcheck inspect PATH            what a bundle holds
//	perfcheck query … LOOKUP          one lookup, or a file of them
//	perfcheck accuracy BUNDLE         both rules, judged on held-out measurements
//	perfcheck calibrate BUNDLE        the accurate rules' calibration, stored beside it
//	perfcheck lint PATH…              what is wrong inside well-formed bundles
//	perfcheck diff A B                two bundles compared: how much, and is it noise
//	perfcheck tp REAL EMULATED        emulated tensor parallelism beside a real engine's
//	perfcheck steps … --steps FILE    predicted steps and requests beside a real engine's run
//	perfcheck merge PART… -o FOLDER   complementary parts of a bundle, put together
//	perfcheck export PATH…            every measurement as one tidy CSV
//	perfcheck plot --bundle B LOOKUP  measured latencies drawn, as text or PNG
//	perfcheck report BUNDLE… -o FILE  bundles shown in one HTML file
//	perfcheck watch DIR               a running profile, followed by its journal
//	perfcheck pack BUNDLE -o FILE     a bundle as one file; unpack FILE FOLDER is the way back
//
// Exit status: 0 good, 1 failed, 2 wrong usage, 5 a check found something.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// The exit statuses that scripts rely on.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitProblems = 5
)

// errProblems ends a verb whose check found something; what it found has been
// printed already.
var errProblems = errors.New("problems found")

// usageError is a mistake in the command line itself.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program but for the process around it.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out, messages := &plain{w: stdout}, &plain{w: stderr}
	status := execute(ctx, args, stdin, out, messages)
	// Nobody is left to be told.
	_, _ = out.flush(), messages.flush()
	return status
}

func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errProblems):
		return exitProblems
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "perfcheck: %v\nRun '%s --help' for usage.\n", err, cmd.CommandPath())
		return exitUsage
	default:
		fmt.Fprintf(stderr, "perfcheck: %v\n", err)
		return exitFailed
	}
}
