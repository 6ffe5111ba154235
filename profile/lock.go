package profile

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// lockFile stands in the journal's folder while a run works on a bundle.
const lockFile = "lock"

// lockName is a run's lock: a shard has its own, so that only runs of one shard
// keep each other out.
func lockName(s Shard) string {
	if s.Count == 0 {
		return lockFile
	}
	return s.JournalName() + ".lock"
}

// How often a holder says that it lives, and how long another host's is
// watched before it is taken for dead.
const (
	lockBeat  = 2 * time.Second
	lockWatch = 5 * lockBeat
)

// A Lock keeps a second run out of a bundle. It is a file that names its
// holder, put in place by a hard link, which is atomic on network file systems
// too, where flock may be local to a host or absent. A holder on this host (same boot,
// same process namespace) is alive if its process is, told from a later one of the same number by
// its start time: a killed process leaves no lock behind. One elsewhere is
// alive as long as the file changes: holders rewrite it every two seconds, and
// the watcher counts ten seconds on its own monotonic clock, so that clocks
// may differ and jump.
type Lock struct {
	path  string
	self  lockHolder
	watch time.Duration // how long a holder elsewhere is watched
	stop  chan struct{}
	lost  chan struct{} // closed when another one has taken the lock
	wg    sync.WaitGroup
}

// lockHolder is the lock file's content.
type lockHolder struct {
	Host      string `json:"host"`
	Boot      string `json:"boot,omitempty"`      // the kernel's boot id
	Namespace string `json:"namespace,omitempty"` // of process numbers
	PID       int    `json:"pid"`
	Started   string `json:"started,omitempty"` // in the kernel's ticks since boot
	Token     string `json:"token"`
	Beat      int    `json:"beat"`
}

// parseHolder reads a lock. Locks are placed whole: one that cannot be read is
// damaged, and watched like one of another host.
func parseHolder(text []byte) (h lockHolder) {
	_ = json.Unmarshal(text, &h)
	return h
}

// sameHost: the holder's process can be looked up here.
func (h lockHolder) sameHost(self lockHolder) bool {
	return h.PID > 0 && h.Boot != "" && h.Boot == self.Boot && h.Namespace == self.Namespace && h.Host == self.Host
}

// alive reports whether a holder of this host still runs.
func (h lockHolder) alive() bool {
	return processStart(h.PID) == h.Started && h.Started != ""
}

// LockedError says who works on a bundle.
type LockedError struct {
	Path string
	Host string
	PID  int
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("another run is at work here: process %d on %s holds %s", e.PID, e.Host, e.Path)
}

// AcquireLock locks the bundle whose journal's folder is dir, which is created
// if need be. It returns a *LockedError if a run is at work there.
func AcquireLock(dir string) (*Lock, error) { return acquireLock(dir, lockFile, lockWatch) }

func acquireLock(dir, name string, watch time.Duration) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	l := &Lock{
		path: filepath.Join(dir, name), self: thisProcess(), watch: watch, stop: make(chan struct{}), lost: make(chan struct{}),
	}
	for range 10 {
		err := l.place()
		if err == nil {
			l.wg.Go(l.beat)
			return l, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		if err := l.removeStale(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: other runs come and go too fast", l.path)
}

// place links a complete file to the lock's name.
func (l *Lock) place() error {
	own := l.path + "." + l.self.Token
	text, err := json.Marshal(l.self)
	if err != nil {
		return err
	}
	if err := os.WriteFile(own, text, 0o666); err != nil {
		return err
	}
	err = os.Link(own, l.path)
	if errors.Is(err, os.ErrExist) {
		// A network file system that lost its answer has asked again, and been
		// told of the link that it had made.
		if held, heldErr := l.held(); heldErr == nil && held {
			err = nil
		}
	}
	return errors.Join(err, os.Remove(own))
}

// removeStale removes the lock of a dead holder; a *LockedError says that it
// is alive.
func (l *Lock) removeStale() error {
	text, err := os.ReadFile(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	holder := parseHolder(text)
	alive := false
	if holder.sameHost(l.self) {
		alive = holder.alive()
	} else {
		alive = l.changes(text)
	}
	if alive {
		return &LockedError{Path: l.path, Host: holder.Host, PID: holder.PID}
	}
	return l.remove(holder.Token)
}

// remove takes a dead holder's lock away. Of several that found it dead one
// makes the second link, whose name is the holder's token; only that one
// removes, so that nobody removes the lock that follows.
func (l *Lock) remove(token string) error {
	grave := l.path + ".dead." + filepath.Base("x"+token)
	err := os.Link(l.path, grave)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil // gone meanwhile
	case errors.Is(err, os.ErrExist):
		// Another one is at it. Should it have died there, it is made up for.
		for range 20 {
			time.Sleep(graveWait / 20)
			if _, err := os.Stat(grave); errors.Is(err, os.ErrNotExist) {
				return nil
			}
		}
		return ignoreAbsent(os.Remove(grave))
	case err != nil:
		return err
	}
	var buried lockHolder
	if text, err := os.ReadFile(grave); err == nil && json.Unmarshal(text, &buried) == nil && buried.Token != token {
		return ignoreAbsent(os.Remove(grave)) // a new holder's, placed meanwhile
	}
	return errors.Join(ignoreAbsent(os.Remove(l.path)), ignoreAbsent(os.Remove(grave)))
}

// graveWait is how long the one that removes a dead holder's lock may take.
const graveWait = 2 * time.Second

func ignoreAbsent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// changes watches the file for a sign of life.
func (l *Lock) changes(text []byte) bool {
	began := time.Now()
	for time.Since(began) < l.watch {
		time.Sleep(min(lockBeat, l.watch) / 4)
		now, err := os.ReadFile(l.path)
		if err != nil {
			return false
		}
		if !bytes.Equal(now, text) {
			return true
		}
	}
	return false
}

// beat rewrites the file in place, at one length, until the lock is released.
func (l *Lock) beat() {
	ticker := time.NewTicker(lockBeat)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
		}
		switch held, err := l.held(); {
		case err != nil:
			continue // the file system does not answer
		case !held:
			close(l.lost)
			return
		}
		l.self.Beat = l.self.Beat%8 + 1 // one digit
		if text, err := json.Marshal(l.self); err == nil {
			if f, err := os.OpenFile(l.path, os.O_WRONLY, 0); err == nil {
				_, _ = f.WriteAt(text, 0)
				_ = f.Close()
			}
		}
	}
}

// held reports whether the file is still ours.
func (l *Lock) held() (bool, error) {
	text, err := os.ReadFile(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return bytes.Contains(text, []byte(l.self.Token)), err
}

// Lost is closed once the lock is found to be another one's: on a machine that
// was cut off for longer than a watcher waits, and came back.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// Release removes the lock. It is safe to call more than once.
func (l *Lock) Release() error {
	select {
	case <-l.stop:
		return nil
	default:
	}
	close(l.stop)
	l.wg.Wait()
	held, err := l.held()
	if err == nil && !held {
		err = errors.New("the lock was taken away during the run")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", l.path, err)
	}
	return os.Remove(l.path)
}

func thisProcess() lockHolder {
	host, _ := os.Hostname()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	namespace, _ := os.Readlink("/proc/self/ns/pid")
	return lockHolder{
		Host: host, Boot: strings.TrimSpace(string(boot)), Namespace: namespace,
		PID: os.Getpid(), Started: processStart(os.Getpid()), Token: rand.Text(),
	}
}

// processStart is when a process started, "" where there is none or the system
// does not tell.
func processStart(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The second field is the command's name in parentheses and may hold anything.
	_, rest, ok := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}
