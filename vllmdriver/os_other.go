//go:build unix && !linux

package vllmdriver

import (
	"os/exec"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func reap(cmd *exec.Cmd, ended func()) error {
	err := cmd.Wait()
	ended()
	return err
}

func groupMembers(int) []int { return nil }

func openFiles(int) []string { return nil }
