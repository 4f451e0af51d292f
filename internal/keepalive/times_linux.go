package keepalive

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func setTimes(fd uintptr, d time.Duration) error {
	err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, int(RTOMax.Milliseconds()))
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) { // which is how an older kernel says that it can't
		return os.NewSyscallError("setsockopt TCP_RTO_MAX_MS", err)
	}
	return os.NewSyscallError("setsockopt TCP_USER_TIMEOUT", unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds())))
}
