package profile

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// holdLock is the environment variable under which this test binary locks a
// folder and waits to be killed.
const holdLock = "LAYERPROF_TEST_HOLD_LOCK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdLock); dir != "" {
		if _, err := AcquireLock(dir); err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Stdout.WriteString("held\n")
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}

func TestLockRefusesASecondRun(t *testing.T) {
	dir := t.TempDir()
	lock, err := AcquireLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	var locked *LockedError
	if _, err := AcquireLock(dir); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("a second lock: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
	if err := lock.Release(); err != nil {
		t.Errorf("a second release: %v", err)
	}
	lock, err = AcquireLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestLockOfAKilledProcess(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdLock+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	var locked *LockedError
	if _, err := AcquireLock(dir); !errors.As(err, &locked) || locked.PID != cmd.Process.Pid {
		t.Errorf("beside a living process: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	lock, err := AcquireLock(dir)
	if err != nil {
		t.Fatalf("after the process was killed: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}

// A holder on another host is alive while its file changes.
func TestLockOfAnotherHost(t *testing.T) {
	holder := lockHolder{Host: "elsewhere", Boot: "another", PID: os.Getpid(), Token: "other"}
	beat := func(dir string) {
		holder.Beat++
		text, err := json.Marshal(holder)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, lockFile), text, 0o666)
		}
		if err != nil {
			t.Error(err)
		}
	}
	dir := t.TempDir()
	beat(dir)
	over := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(10 * time.Millisecond):
				beat(dir)
			}
		}
	})
	// However slow this process is, it sees a change before an hour is over.
	if lock, err := acquireLock(dir, lockFile, time.Hour); err == nil {
		t.Errorf("a living holder's lock was taken: %v", lock.Release())
	}
	close(over)
	beating.Wait()

	dir = t.TempDir()
	beat(dir)
	lock, err := acquireLock(dir, lockFile, 200*time.Millisecond)
	if err != nil {
		t.Fatalf("a dead holder: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}

// Of many that find a dead holder, one gets the lock.
func TestLockOneOfMany(t *testing.T) {
	dir := t.TempDir()
	stale := thisProcess()
	stale.PID, stale.Started, stale.Token = 1<<22+1, "1", "stale"
	text, _ := json.Marshal(stale)
	if err := os.WriteFile(filepath.Join(dir, lockFile), text, 0o666); err != nil {
		t.Fatal(err)
	}
	const n = 20
	locks := make(chan *Lock, n)
	for range n {
		go func() {
			lock, err := AcquireLock(dir)
			var locked *LockedError
			if err != nil && !errors.As(err, &locked) {
				t.Error(err)
			}
			locks <- lock
		}()
	}
	var held []*Lock
	for range n {
		if lock := <-locks; lock != nil {
			held = append(held, lock)
		}
	}
	if len(held) != 1 {
		t.Fatalf("%d locks were given", len(held))
	}
	if err := held[0].Release(); err != nil {
		t.Error(err)
	}
}

func TestRunRefusesALockedBundle(t *testing.T) {
	dir := t.TempDir()
	lock, err := AcquireLock(filepath.Join(dir, JournalDir))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lock.Release(); err != nil {
			t.Error(err)
		}
	}()
	d := newFakeDevice()
	var locked *LockedError
	if _, err := Run(t.Context(), testOptions(t, d, dir)); !errors.As(err, &locked) {
		t.Errorf("run: %v", err)
	}
	if d.opened != 0 {
		t.Error("a driver was opened for a bundle that is not ours")
	}
}

// A holder whose lock another one has taken meanwhile is told.
func TestLockIsLost(t *testing.T) {
	dir := t.TempDir()
	lock, err := AcquireLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-lock.Lost():
		t.Fatal("lost at once")
	default:
	}
	takeLock(t, filepath.Join(dir, lockFile))
	<-lock.Lost() // within a beat
	if err := lock.Release(); err == nil || !strings.Contains(err.Error(), "taken away") {
		t.Errorf("release: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, lockFile)); err != nil || !strings.Contains(string(text), "taker") {
		t.Errorf("the taker's lock is gone: %v, %s", err, text)
	}
}

// takeLock replaces a lock by that of another host.
func takeLock(t *testing.T, path string) {
	t.Helper()
	text, err := json.Marshal(lockHolder{Host: "elsewhere", Boot: "another", PID: 7, Token: "taker"})
	if err == nil {
		err = os.WriteFile(path, text, 0o666)
	}
	if err != nil {
		t.Error(err)
	}
}

// A link that is said to exist, and is this very lock's, is the lock.
func TestLockPlacedTwice(t *testing.T) {
	lock, err := AcquireLock(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.place(); err != nil {
		t.Errorf("placed again: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}
