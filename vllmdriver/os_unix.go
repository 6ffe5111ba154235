//go:build unix

package vllmdriver

import "syscall"

func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func killGroup(group int) error { return syscall.Kill(-group, syscall.SIGKILL) }
