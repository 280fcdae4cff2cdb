//go:build !linux

package party_test

import "syscall"

func (c config) container() *syscall.SysProcAttr { return nil }
func (c *config) enter() error                   { return nil }
