//go:build !linux

package nstest

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

func start(m *testing.M, after []func()) int { return runTests(m, after) }

// InNamespace reports false: network namespaces need Linux.
func InNamespace() bool { return false }

// NeedKernelMode skips the test: kernel mode needs Linux.
func NeedKernelMode(t *testing.T) {
	t.Helper()
	t.Skip("SKIPPED, NOT TESTED: kernel mode needs Linux")
}

// Outside reports that the test runs where it was started.
func Outside(*testing.T) bool { return true }

// AsNobody reports that the test runs as whoever started it.
func AsNobody(*testing.T) bool { return true }

// DialFromClient fails: network namespaces need Linux.
func DialFromClient(string) (*net.UnixConn, error) { return nil, errors.ErrUnsupported }

// ServeLies fails: network namespaces need Linux.
func ServeLies(netip.AddrPort) error { return errors.ErrUnsupported }

// ServeDNS fails: network namespaces need Linux.
func ServeDNS(netip.AddrPort, netip.Addr) error { return errors.ErrUnsupported }

// Lies fails: network namespaces need Linux.
func Lies() ([]string, error) { return nil, errors.ErrUnsupported }
