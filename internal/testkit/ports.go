package testkit

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// givenPorts are the ports that FreePorts has returned so far.
var givenPorts sync.Map

// FreePorts returns n addresses of loopback with free ports. The ports lie below
// those that the system hands out, because a connection that is opened meanwhile
// could get one of those. None is returned twice.
func FreePorts(t testing.TB, n int) (list []string) {
	t.Helper()
	for try := 0; len(list) < n; try++ {
		port := 20000 + rand.IntN(12000)
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			if try == 100 {
				t.Fatal(err)
			}
			continue
		}
		ln.Close()
		list = append(list, ln.Addr().String())
	}
	return list
}
