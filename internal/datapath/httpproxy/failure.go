package httpproxy

import (
	"errors"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/cause"
	"github.com/pandoproxy/pando/internal/flow"
)

// failure turns err, which ended the exchange, into the error for the client
// and the log. status is that of the response; 0 means that of the class. Call
// it before release, which closes connections and so adds evidence of its own.
func (x *exchange) failure(err error) (fe *flow.Error, status int) {
	if why, ok := errors.AsType[*flow.Error](x.whyRevoked()); ok {
		return why, 0
	}
	_, uploadErr := x.upload.done(0)
	for _, err := range []error{uploadErr, x.watch.Err()} {
		if fe, ok := errors.AsType[*flow.Error](err); ok { // it has panicked
			return fe, 0
		}
	}
	return cause.Evidence{
		Err:    err,
		Upload: uploadErr,
		Cut:    x.s.p.isCut(),
		Left:   x.watch.Left(),
	}.Failure(x.rec.Target())
}
