package testnet_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/netip"
	"time"

	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testnet"
)

// A tailnet with a cloud node runs in this process. Another node joins it and reaches
// the private API behind the cloud node.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	net, err := testnet.Start(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer net.Close()
	cloud, err := net.StartCloud(ctx, "cloud", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer cloud.Close()
	node, err := tailnet.Start(ctx, tailnet.Options{
		ControlURL: net.URL(),
		AuthKey:    testnet.AuthKey,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Wait(ctx); err != nil {
		log.Fatal(err)
	}
	for !node.Routes(testnet.APIAddr) { // the cloud node's routes are approved
		time.Sleep(10 * time.Millisecond) // the engine has no event for a route
	}
	conn, err := node.DialTCP(ctx, netip.AddrPortFrom(testnet.APIAddr, 80))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /v1 HTTP/1.0\r\nHost: "+testnet.APIName+"\r\n\r\n")
	var status string
	fmt.Fscanf(conn, "HTTP/1.0 %s", &status)
	fmt.Println(status)
	// Output: 200
}
