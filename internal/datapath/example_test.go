package datapath_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/pandoproxy/pando/internal/datapath"
	"github.com/pandoproxy/pando/internal/datapath/dial"
	"github.com/pandoproxy/pando/internal/datapath/limit"
	"github.com/pandoproxy/pando/internal/datapath/policy"
	"github.com/pandoproxy/pando/internal/datapath/relay"
	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/flow"
)

// A front fills in a record and asks the road for a connection.
func ExampleRoad() {
	road := &datapath.Road{
		Ready: func(context.Context) error { return nil }, // waits for the tailnet
		Resolver: resolve.New(resolve.Options{
			Hosts: map[string][]netip.Addr{"db.corp.example": {netip.MustParseAddr("10.12.3.4")}},
		}),
		Routes: func(_ context.Context, addrs []netip.Addr) []bool { return make([]bool, len(addrs)) },
		Dialer: &dial.Dialer{
			Direct: func(_ context.Context, addr netip.AddrPort) (net.Conn, error) {
				fmt.Println("dial", addr)
				client, _ := net.Pipe()
				return client, nil
			},
		},
		Relay:       &relay.Relay{},
		Limit:       &limit.Gate{},
		CarrierText: func(netip.Addr) string { return "" },
		Finished:    func(rec *flow.Record) { fmt.Println("finished:", flow.ClassOf(rec.Err)) },
	}
	road.SetPolicy(&policy.Policy{
		Direct: policy.DirectAny,
		Rules:  []policy.Rule{{Name: "no-web", Names: []string{"www.corp.example"}}},
	})

	for _, host := range []string{"db.corp.example", "www.corp.example"} {
		rec := flow.NewRecord(flow.Connect, netip.MustParseAddrPort("10.244.1.7:40000"))
		rec.Host = host
		rec.Port = 5432
		conn, err := road.Connect(context.Background(), rec)
		if err != nil {
			fmt.Println(err)
			rec.Err = err
			road.Finish(rec)
			continue
		}
		conn.Close() // a front calls road.Tunnel with its client's connection instead
	}
	// Output:
	// dial 10.12.3.4:5432
	// policy www.corp.example: denied: denied by rule no-web
	// finished: denied
}
