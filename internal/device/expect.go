package device

import (
	"context"
	"errors"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
	"github.com/pandoproxy/pando/internal/tailnet"
)

// expectEvery is how often the device looks if it is in the expected tailnet, for
// the log alone: what refuses flows looks each time.
const expectEvery = 500 * time.Millisecond

// awaitExpected returns nil when the device is in the tailnet of tailnet.expect, or
// in any without that key. Until then it makes no WireGuard session. When ctx ends
// first, it returns in which tailnet the device is.
func (d *Device) awaitExpected(ctx context.Context) error {
	logged := false
	for {
		err := d.err()
		if !errors.Is(err, tailnet.ErrWrongTailnet) {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if !logged {
			d.logWrong(err)
		}
		logged = true
		flow.Sleep(ctx.Done(), expectEvery)
	}
}

// watchExpected logs when the device leaves the expected tailnet and when it is back,
// until ctx ends.
func (d *Device) watchExpected(ctx context.Context) {
	wrong := false
	for d.config.Expect != "" && ctx.Err() == nil {
		err := d.err()
		was := wrong
		wrong = errors.Is(err, tailnet.ErrWrongTailnet)
		switch {
		case wrong && !was:
			d.logWrong(err)
		case was && !wrong:
			d.log.Info("in the expected tailnet again")
		}
		flow.Sleep(ctx.Done(), expectEvery)
	}
}

func (d *Device) logWrong(err error) {
	d.log.Error("wrong tailnet; serving nothing", "err", err,
		"remedy", "check who logged the device in, and its auth key; remove its state (tailnet.kubeSecret or tailnet.stateDir); then restart it")
}

// hintFor returns the hint for clients about err: hint, unless the device is in the
// wrong tailnet.
func hintFor(err error, hint string) string {
	if errors.Is(err, tailnet.ErrWrongTailnet) {
		return "the replica is in another tailnet than its setting tailnet.expect allows; ask its operator to look at its log"
	}
	return hint
}

// checkExpected fails while the device is in another tailnet than the expected one.
func (s Snapshot) checkExpected() status.Check {
	return status.Check{Name: status.ExpectedTailnet, Err: s.Wrong}
}
