//go:build !linux

package nstest

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
)

// Addresses of the veth pair, where there is one.
const (
	HereAddr   = "10.12.5.1"
	ClientAddr = "10.12.5.5"
)

// Lie is the address that ServeLies has every name stand for.
const Lie = "6.6.6.6"

// Main is the TestMain of packages that use Inside.
func Main(m *testing.M) { os.Exit(m.Run()) }

// Inside skips the test: network namespaces need Linux.
func Inside(t *testing.T) bool {
	t.Skip("SKIPPED, NOT TESTED: kernel mode needs Linux")
	return false
}

// DialFromClient fails: network namespaces need Linux.
func DialFromClient(string) (*net.UnixConn, error) { return nil, errors.ErrUnsupported }

// ServeLies fails: network namespaces need Linux.
func ServeLies(netip.AddrPort) error { return errors.ErrUnsupported }

// Lies fails: network namespaces need Linux.
func Lies() ([]string, error) { return nil, errors.ErrUnsupported }
