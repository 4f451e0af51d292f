//go:build !linux

package socket

import "time"

func setUserTimeout(uintptr, time.Duration) error { return nil }
