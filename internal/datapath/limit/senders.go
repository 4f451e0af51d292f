package limit

import "net/netip"

// maxHeaders is how many connections may wait for the header that says who their
// client is. Those of one sender are bounded by its share, so that one which sends
// none leaves room for the others.
const maxHeaders = 1024

// EnterSender counts a connection of sender, whose client is not known before its
// header is read. leave ends that and must be called once; the client then enters. If
// as many wait as may, or sender has its share of them, EnterSender counts nothing and
// returns a *flow.Error of class Overloaded.
func (g *Gate) EnterSender(sender netip.Addr) (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case reached(g.unnamed.total, maxHeaders):
		g.countRefusal(Headers)
		return nil, overLimit(Headers)
	case g.unnamed.hasShare(maxHeaders, sender):
		g.countRefusal(HeaderShare)
		return nil, overLimit(HeaderShare)
	}
	if g.Memory != nil {
		if err := g.Memory.Take(sender, connectionCost); err != nil {
			return nil, err
		}
	}
	g.unnamed.add(sender, 1)
	return func() { g.leaveSender(sender) }, nil
}

func (g *Gate) leaveSender(sender netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unnamed.add(sender, -1)
	if g.Memory != nil {
		g.Memory.Give(sender, connectionCost)
	}
}
