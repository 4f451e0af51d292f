//go:build !linux

package nstest

import (
	"errors"
	"net"
	"os"
	"testing"
)

// Addresses of the veth pair, where there is one.
const (
	HereAddr   = "10.12.5.1"
	ClientAddr = "10.12.5.5"
)

// Main is the TestMain of packages that use Inside.
func Main(m *testing.M) { os.Exit(m.Run()) }

// Inside skips the test: network namespaces need Linux.
func Inside(t *testing.T) bool {
	t.Skip("SKIPPED, NOT TESTED: kernel mode needs Linux")
	return false
}

// DialFromClient fails: network namespaces need Linux.
func DialFromClient(string) (*net.UnixConn, error) { return nil, errors.ErrUnsupported }
