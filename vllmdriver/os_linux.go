package vllmdriver

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// reap waits for the child to end and calls ended while it is a zombie: until
// Wait has reaped it, its id and its group's are nobody else's.
func reap(cmd *exec.Cmd, ended func()) error {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	ended()
	return cmd.Wait()
}

// groupMembers lists the processes of a group that have not ended; who ended
// and was not reaped by its parent holds nothing any more.
func groupMembers(group int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var members []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if g, err := unix.Getpgid(pid); err == nil && g == group && !isZombie(pid) {
			members = append(members, pid)
		}
	}
	return members
}

func isZombie(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return true // gone
	}
	// The name before the state is in parentheses and may hold any character.
	i := strings.LastIndexByte(string(stat), ')')
	return i >= 0 && strings.HasPrefix(string(stat[i:]), ") Z")
}

// openFiles lists the files that a process has mapped or open.
func openFiles(pid int) []string {
	var paths []string
	root := filepath.Join("/proc", strconv.Itoa(pid))
	if maps, err := os.ReadFile(filepath.Join(root, "maps")); err == nil {
		for line := range strings.Lines(string(maps)) {
			if i := strings.IndexByte(line, '/'); i >= 0 {
				paths = append(paths, strings.TrimSpace(line[i:]))
			}
		}
	}
	fds, err := os.ReadDir(filepath.Join(root, "fd"))
	if err != nil {
		return paths
	}
	for _, e := range fds {
		if path, err := os.Readlink(filepath.Join(root, "fd", e.Name())); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}
