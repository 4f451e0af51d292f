package sni

import (
	"io"
	"net/netip"

	"github.com/pandoproxy/pando/internal/flow"
)

const (
	// helloCost is what a hello costs before it has any bytes: the first buffer.
	helloCost = 4 << 10
	// helloShare is how many bytes of memory a byte of a hello costs: it is in the buffer
	// for the target, and without its record header in that of the parser if there are
	// several records. Both grow by doubling.
	helloShare = 4
)

// account is what the hello of a client costs while it is read and passed on.
type account struct {
	memory flow.Memory // nil means that nothing costs anything
	client netip.Addr
	taken  int64
}

func (a *account) take(n int64) error {
	if a.memory == nil {
		return nil
	}
	if err := a.memory.Take(a.client, n); err != nil {
		return err
	}
	a.taken += n
	return nil
}

// release gives everything back.
func (a *account) release() {
	if a.taken > 0 {
		a.memory.Add(a.client, -a.taken)
	}
	a.taken = 0
}

// reader returns a reader of r that takes what the bytes cost. Its errors are those of r
// and of the memory.
func (a *account) reader(r io.Reader) io.Reader { return &chargedReader{r, a} }

type chargedReader struct {
	r       io.Reader
	account *account
}

func (c *chargedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if n == 0 {
		return n, err
	}
	if terr := c.account.take(helloShare * int64(n)); terr != nil {
		return 0, terr
	}
	return n, err
}
