package resolve_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/pandoproxy/pando/internal/datapath/resolve"
	"github.com/pandoproxy/pando/internal/host"
)

func ExampleResolver() {
	r := resolve.New(resolve.Options{
		Hosts: map[string][]netip.Addr{"*.corp.example": {netip.MustParseAddr("10.12.3.4")}},
	})
	for _, target := range []string{"DB.corp.example.", "0x0a.12.3.5"} {
		h, err := host.Parse(target)
		if err != nil {
			fmt.Println(err)
			continue
		}
		answer, err := r.Lookup(context.Background(), h)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(answer.Addrs, "from", answer.Source)
	}
	// Output:
	// [10.12.3.4] from hosts
	// [10.12.3.5] from literal
}
