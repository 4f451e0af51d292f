//go:build !linux

package tailnet

import (
	"errors"

	"tailscale.com/wgengine"
)

// useKernel fails: kernel mode needs Linux.
func (n *Node) useKernel(*wgengine.Config) error {
	return errors.New("kernel mode needs Linux: use tailnet.mode: userspace")
}
