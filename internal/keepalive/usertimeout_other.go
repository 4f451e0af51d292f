//go:build !linux

package keepalive

import "time"

func setUserTimeout(uintptr, time.Duration) error { return nil }
