package tailnet

import (
	"errors"
	"fmt"
	"time"
)

// closeTime bounds each part of Close that the library could keep for ever.
const closeTime = 5 * time.Second

// Close leaves the tailnet: it ends every connection that the userspace stack
// holds, stops the engine and waits for it, and logs out when the node is
// ephemeral. In kernel mode, connections belong to the kernel: the caller
// closes them first. Close returns an error when some part did not stop in
// time; the node is of no use then either.
func (n *Node) Close() error {
	n.stop()
	<-n.watchDone
	n.workers.Wait()
	return n.closeEngine()
}

// closeEngine also ends a node that came up only in part.
func (n *Node) closeEngine() error {
	var errs []error
	within := func(what string, d time.Duration, f func()) {
		if err := bounded(d, f); err != nil {
			errs = append(errs, fmt.Errorf("tailnet: close: %s: %w", what, err))
		}
	}
	// The endpoints go first, while the engine still takes their resets:
	// netstack.Impl.Close stops the drain of its 512-packet queue and then
	// waits, for ever, for more resets than fit.
	if n.stack != nil {
		within("endpoints", closeTime, n.stack.Close)
	}
	if n.ns != nil && n.lb != nil {
		within("netstack", closeTime, func() { n.ns.Close() })
	}
	if n.lb != nil {
		wait := closeTime
		if n.opts.Ephemeral {
			wait += 5 * time.Second // the library's own bound on the logout
		}
		within("engine", wait, n.lb.Shutdown)
	}
	if n.dialer != nil {
		n.dialer.Close()
	}
	if n.netMon != nil {
		n.netMon.Close()
	}
	if n.sys != nil {
		n.sys.Bus.Get().Close()
	}
	return errors.Join(errs...)
}

// bounded runs f and waits for it at most d. When f outlives d its goroutine
// is left behind, and the error says so.
func bounded(d time.Duration, f func()) error {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
		return fmt.Errorf("still running after %v", d)
	}
}
