//go:build unix && !linux

package socket

// sentAll returns false: it is known on Linux only.
func sentAll(int) bool { return false }
