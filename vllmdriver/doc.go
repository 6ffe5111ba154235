// Package vllmdriver measures shots on a real engine: it starts a worker
// process, the embedded one for vLLM or any other program that speaks the
// protocol of PROTOCOL.md, and hands it batches.
//
//	driver, err := vllmdriver.New(vllmdriver.Options{Python: "/opt/vllm/bin/python"})
//	if err != nil { ... }
//	defer driver.Close()
//	engine, err := driver.Boot(ctx, spec)
//	err = driver.Measure(ctx, shots, profile.MeasureOptions{Warmup: 1, Iterations: 3}, func(r profile.Result) error { ... })
//
// # Processes
//
// A worker stands in a process group of its own, with a temporary folder of its
// own. However it ends, the rest of its group is killed, and its folder and what
// it left in shared memory are removed. If this process dies, a guard in a
// session of its own does the same (a few lines of /bin/sh that wait for the end
// of a pipe); on Linux the kernel also ends the worker itself, and a worker ends
// at the end of its requests. Each Boot after the first has a fresh process.
//
// # Errors
//
// A worker or an engine that does not come up is a *StartError, around a
// *WorkerError where the worker said why. A Measure that loses the engine returns
// a *profile.EngineLostError with the tail of what was printed; a deadline that
// passed is context.DeadlineExceeded in its chain, and what breaks the protocol
// is ErrProtocol. A Driver is used by one goroutine at a time, but for Close.
package vllmdriver
