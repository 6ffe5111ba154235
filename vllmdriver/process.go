package vllmdriver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	// drainTime is how long the pipes of a worker that ended may stay open in
	// the hands of processes that left its group.
	drainTime = time.Second
	// killPatience bounds the wait for a killed worker: one in an
	// uninterruptible call of a device's driver may not die at all.
	killPatience = 30 * time.Second
	// noteEvery is how often a booting worker's shared memory is looked at.
	noteEvery = time.Second
)

// processSpec says what to start.
type processSpec struct {
	Command []string
	// Embedded adds the embedded worker's main program to Command; its sources
	// are written to the process's temporary folder, and go with it.
	Embedded bool
	Env      []string // complete; TMPDIR, TEMP, TMP and LAYERPROF_FDS are added
	Log      io.Writer
}

// process is a worker's process group and what belongs to it: three pipes, a
// temporary folder and a guard, which ends the group if this process dies.
// When the worker ends, by itself or not, the rest of its group is killed and
// everything is removed; done is closed after that.
type process struct {
	cmd      *exec.Cmd
	tmp      string
	requests *os.File // ours to write
	replies  *os.File // ours to read
	logs     *os.File
	tail     *tail
	guard    *guard
	shm      *shmNames

	mu     sync.Mutex
	ended  bool // the leader is or is about to be reaped: its id may be reused
	killed bool // by us

	done    chan struct{}
	logDone chan struct{}
	guarded chan struct{} // closed when guard is set
	waitErr error         // valid after done
	cleanup error
}

// startProcess starts the worker; its descriptors 3 and 4 are the protocol's.
func startProcess(spec processSpec) (_ *process, err error) {
	p := &process{done: make(chan struct{}), logDone: make(chan struct{}), guarded: make(chan struct{}), tail: &tail{pass: spec.Log}}
	var files []*os.File
	pipe := func() (r, w *os.File) {
		if err != nil {
			return nil, nil
		}
		if r, w, err = os.Pipe(); err == nil {
			files = append(files, r, w)
		}
		return r, w
	}
	defer func() {
		if err != nil {
			for _, f := range files {
				err = errors.Join(err, f.Close())
			}
			if p.tmp != "" {
				err = errors.Join(err, os.RemoveAll(p.tmp))
			}
		}
	}()
	if p.tmp, err = os.MkdirTemp("", "layerprof-"); err != nil {
		return nil, err
	}
	command := spec.Command
	if spec.Embedded {
		main, err := unpackWorker(p.tmp)
		if err != nil {
			return nil, fmt.Errorf("unpack the worker: %w", err)
		}
		command = append(command[:len(command):len(command)], main)
	}
	theirRequests, requests := pipe()
	replies, theirReplies := pipe()
	logs, theirLogs := pipe()
	if err != nil {
		return nil, err
	}
	p.requests, p.replies, p.logs = requests, replies, logs
	p.shm = listSHM()

	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(append([]string(nil), spec.Env...), "LAYERPROF_FDS=3,4", "TMPDIR="+p.tmp, "TEMP="+p.tmp, "TMP="+p.tmp)
	cmd.Stdout, cmd.Stderr = theirLogs, theirLogs
	cmd.ExtraFiles = []*os.File{theirRequests, theirReplies}
	cmd.SysProcAttr = ownGroup()
	p.cmd = cmd

	started := make(chan error)
	go func() {
		// The kernel's parent-death signal goes by the thread that forked.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.wait()
	}()
	if err = <-started; err != nil {
		return nil, startError(command[0], err)
	}
	// Only the worker holds these now, so that its end is seen.
	err = errors.Join(theirRequests.Close(), theirReplies.Close(), theirLogs.Close())
	files = nil
	go func() {
		defer close(p.logDone)
		_, _ = io.Copy(p.tail, p.logs) // ends at the end of the log, or by the deadline that wait sets
	}()
	var guardErr error
	p.guard, guardErr = startGuard(p.pid(), p.tmp)
	close(p.guarded)
	if err = errors.Join(err, guardErr); err != nil {
		return nil, errors.Join(err, p.kill())
	}
	return p, nil
}

func startError(name string, err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("start the worker: %s: no such program: %w", name, err)
	}
	return fmt.Errorf("start the worker: %w", err)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// wait reaps the worker and clears up after it.
func (p *process) wait() {
	p.waitErr = reap(p.cmd, func() {
		p.mu.Lock()
		p.ended = true
		p.shm.note(p.pid()) // what its children still hold
		_ = killGroup(p.pid())
		p.mu.Unlock()
	})
	// The others die a moment after the signal: until then they hold memory.
	for end := time.Now().Add(killPatience / 3); len(groupMembers(p.pid())) > 0 && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
	// What still holds a pipe has left the group; it gets a moment, not more.
	late := time.Now().Add(drainTime)
	_ = p.logs.SetReadDeadline(late)
	_ = p.replies.SetReadDeadline(late)
	<-p.logDone
	<-p.guarded
	p.cleanup = errors.Join(p.logs.Close(), removeTemp(p.tmp), p.shm.sweep(), p.guard.stop())
	close(p.done)
}

// removeTemp tries twice: a process that dies may still add a file.
func removeTemp(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	time.Sleep(50 * time.Millisecond)
	return os.RemoveAll(dir)
}

// note records what the worker's processes hold in shared memory.
func (p *process) note() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	for _, name := range p.shm.note(p.pid()) {
		p.guard.remember(name)
	}
}

// noteUntil records it again and again, until done: a worker that is killed
// while it boots leaves what its ranks have by then.
func (p *process) noteUntil(done <-chan struct{}) {
	ticker := time.NewTicker(noteEvery)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-p.done:
			return
		case <-ticker.C:
			p.note()
		}
	}
}

// kill ends the worker's whole group and waits until nothing of it is left.
func (p *process) kill() error {
	p.note()
	p.mu.Lock()
	if !p.ended {
		p.killed = true
		_ = killGroup(p.pid())
	}
	p.mu.Unlock()
	return p.gone(killPatience)
}

// stop lets the worker end by itself for a while, then kills it.
func (p *process) stop(patience time.Duration) error {
	p.note()
	_ = p.requests.Close()
	select {
	case <-p.done:
		return p.gone(killPatience)
	case <-time.After(patience):
		return p.kill()
	}
}

func (p *process) gone(patience time.Duration) error {
	select {
	case <-p.done:
	case <-time.After(patience):
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ended {
			return fmt.Errorf("worker process %d died, and clearing up after it does not end", p.pid())
		}
		return fmt.Errorf("worker process %d does not die", p.pid())
	}
	_ = p.requests.Close()
	_ = p.replies.Close()
	return p.cleanup
}

// fate says how the worker ended, once it has.
func (p *process) fate() string {
	select {
	case <-p.done:
	default:
		return "the worker runs"
	}
	var exit *exec.ExitError
	switch {
	case p.waitErr == nil:
		return "the worker ended with status 0"
	case errors.As(p.waitErr, &exit):
		return "the worker ended: " + exit.String()
	}
	return "the worker ended: " + strings.TrimSpace(p.waitErr.Error())
}
