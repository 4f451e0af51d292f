package tailnet_test

import (
	"context"
	"log"
	"net/netip"
	"os"
	"time"

	"github.com/pandoproxy/pando/internal/tailnet"
)

// A node joins the tailnet, makes its tunnels ready, and dials an address that a
// subnet router carries.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	store, err := tailnet.DirStore("/var/lib/pando")
	if err != nil {
		log.Fatal(err)
	}
	node, err := tailnet.Start(ctx, tailnet.Options{
		Mode:     tailnet.Userspace,
		Hostname: "pando-0",
		AuthKey:  os.Getenv("TS_AUTHKEY"),
		Store:    store,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Wait(ctx); err != nil {
		log.Fatal(err) // the error says what the login waits for
	}
	if err := node.Warm(ctx); err != nil {
		log.Print(err) // a router that does not answer yet
	}
	conn, err := node.DialTCP(ctx, netip.MustParseAddrPort("10.12.3.4:443"))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
}
