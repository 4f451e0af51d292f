//go:build !linux

package tailnet

import (
	"errors"

	"tailscale.com/wgengine"
)

func (n *Node) useKernel(*wgengine.Config) error {
	return errors.New("kernel mode needs Linux; use tailnet.mode: userspace")
}
