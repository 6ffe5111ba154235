package vllmdriver

import (
	"errors"
	"io"
	"os/exec"
	"strconv"
	"sync"
)

// guardScript waits in a session of its own for this process to end. Its
// standard input closes when that happens, however it happens; then it kills
// the worker's group and removes what the worker would leave. The kernel's
// parent-death signal reaches only the worker itself, not what it started.
const guardScript = `
cd /
set -f
names=
while read -r word name; do
	case $word in
	shm) names="$names $name" ;;
	done) exit 0 ;;
	esac
done
kill -s KILL -- "-$1" 2>/dev/null
sleep 1
rm -rf -- "$2"
for name in $names; do rm -f -- "/dev/shm/$name"; done
`

type guard struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	mu    sync.Mutex
	ended bool
}

func startGuard(group int, tmp string) (*guard, error) {
	g := &guard{cmd: exec.Command("/bin/sh", "-c", guardScript, "layerprof-guard", strconv.Itoa(group), tmp)}
	g.cmd.SysProcAttr = ownSession()
	g.cmd.Env = []string{"PATH=/usr/bin:/bin"}
	input, err := g.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	g.input = input
	if err := g.cmd.Start(); err != nil {
		return nil, errors.Join(startError("/bin/sh", err), input.Close())
	}
	return g, nil
}

// remember adds a name in shared memory to what the guard removes.
func (g *guard) remember(name string) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.ended {
		_, _ = io.WriteString(g.input, "shm "+name+"\n")
	}
}

// stop dismisses the guard.
func (g *guard) stop() error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return nil
	}
	g.ended = true
	_, writeErr := io.WriteString(g.input, "done\n")
	_ = g.input.Close()
	if err := g.cmd.Wait(); err != nil && writeErr == nil {
		return errors.Join(errors.New("the worker's guard"), err)
	}
	return nil
}
