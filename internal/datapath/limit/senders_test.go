package limit

import (
	"testing"

	"github.com/pandoproxy/pando/internal/flow"
)

// TestEnterSender checks that a sender whose headers do not come leaves room for the
// next one, and that its connections cost memory until then.
func TestEnterSender(t *testing.T) {
	g := Gate{Memory: &Budget{}}
	refused := refusals(&g)
	g.Set(Limits{PerClient: 1}) // it does not count connections of unknown clients
	var leave []func()
	enter := func() error {
		l, err := g.EnterSender(alice)
		if err == nil {
			leave = append(leave, l)
		}
		return err
	}
	for enter() == nil {
	}
	if n := len(leave); n < maxHeaders/4 || n > maxHeaders*3/4 || refused[HeaderShare] != 1 {
		t.Errorf("a sender alone has %d of %d connections, refusals %v; want its share", n, maxHeaders, refused)
	}
	if err := enter(); flow.ClassOf(err) != flow.Overloaded || flow.HintOf(err) == "" {
		t.Errorf("EnterSender above the share = %v, want class overloaded and a hint", err)
	}
	if held := g.Memory.Held(alice); held != int64(len(leave))*connectionCost {
		t.Errorf("%d connections hold %d bytes, want %d for each", len(leave), held, connectionCost)
	}
	other, err := g.EnterSender(bob)
	if err != nil {
		t.Fatalf("EnterSender of another sender = %v, want no error", err)
	}
	if n, _ := g.Connections(); n != 0 {
		t.Errorf("%d connections of clients, want none yet", n)
	}
	other()
	for _, l := range leave {
		l()
	}
	if g.unnamed.total != 0 || len(g.unnamed.clients) != 0 || g.Memory.Held(alice) != 0 {
		t.Errorf("%d connections and %d bytes are left, want none", g.unnamed.total, g.Memory.Held(alice))
	}
}
