package httpproxy

import (
	"net/http"

	"github.com/pandoproxy/pando/internal/datapath/httpproxy/origin"
	"github.com/pandoproxy/pando/internal/datapath/httpproxy/wire"
	"github.com/pandoproxy/pando/internal/flow"
)

// owner is the client whose connections to origins may serve rec.
func owner(rec *flow.Record) origin.Owner {
	return origin.Owner{Addr: rec.Client.Addr(), User: rec.User}
}

// outcome decides what becomes of the connection to the origin after resp, which
// has been read whole. An origin that takes the body of a request for another
// request answers that one, too. Its answer must not reach the next request, so a
// connection is closed when there is a reason to think that this can happen.
func (x *exchange) outcome(resp *wire.Response) origin.Outcome {
	takesMore := x.o.Hint(wire.KeepAlive(resp.Header["Keep-Alive"]))
	switch {
	case resp.Close, !takesMore:
		return origin.OriginCloses
	case x.req.Body != http.NoBody && !wire.BodyHasMeaning(x.req.Method):
		return origin.OddBody
	case len(x.req.Header["Expect"]) > 0:
		return origin.Expect
	case x.early:
		return origin.Early
	case resp.Ambiguous:
		return origin.Ambiguous
	case wire.AuthenticatesConnection(x.req.Header["Authorization"]), wire.AuthenticatesConnection(resp.Header["Www-Authenticate"]):
		return origin.ConnectionAuth
	case x.s.p.Reuse == origin.ReuseNone:
		return origin.NoReuse
	}
	return origin.Kept
}

// release ends the request body if it is still on its way, and pools the
// origin connection if out is Kept, or else closes it. It reports whether the
// whole request was read, so that the next one can follow.
func (x *exchange) release(out origin.Outcome) (whole bool) {
	whole, err := x.upload.done(0)
	if !whole {
		x.upload.stop()
	}
	left := x.watch.Stop()
	if err == nil {
		err = x.watch.Err()
	}
	if flow.IsPanic(err) && x.rec.Err == nil {
		x.rec.Err = err
	}
	switch {
	case out != origin.Kept:
	case !whole || left:
		out = origin.Broken
	case x.o.R.Buffered() > 0:
		out = origin.Unasked
	}
	if out == origin.Kept {
		out = x.keep()
	} else {
		x.o.Close()
	}
	if x.s.p.Released != nil {
		x.s.p.Released(out)
	}
	return whole
}

// keep pools the origin connection. A connection that has carried a body stays
// with its client, whatever the configuration says: with any method, an origin
// may ignore a body.
func (x *exchange) keep() origin.Outcome {
	p := x.s.p
	terms := origin.Terms{
		Shared:  p.Reuse == origin.ReuseShared && !x.o.HadBody,
		Idle:    orDefault(p.IdleTimeout, DefaultIdleTimeout),
		Replace: !wire.Replayable(x.req), // it has not used an idle one
	}
	if p.pool.Put(x.o, owner(x.rec), terms) {
		return origin.Kept
	}
	return origin.Full
}

func (p *Proxy) droppedTrailers(n int) {
	if n > 0 && p.DroppedTrailers != nil {
		p.DroppedTrailers(n)
	}
}
