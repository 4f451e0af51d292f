package proxyheader

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/testkit"
)

// sent returns the header that a sender of the library writes.
func sent(t testing.TB, version byte, client, proxy string, tlvs ...proxyproto.TLV) string {
	t.Helper()
	addr := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	h := proxyproto.HeaderProxyFromAddrs(version, addr(client), addr(proxy))
	if err := h.SetTLVs(tlvs); err != nil {
		t.Fatal(err)
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// binaryHeader returns a header of version 2 with any bytes.
func binaryHeader(versionCommand, family byte, body string) string {
	b := append([]byte(signature2), versionCommand, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(body)))) + body
}

// Addresses of version 2, as in the line "PROXY TCP4 192.0.2.7 192.0.2.1 4000 1055".
const (
	body4 = "\xc0\x00\x02\x07\xc0\x00\x02\x01\x0f\xa0\x04\x1f"
	zero8 = "\x00\x00\x00\x00\x00\x00\x00\x00"
	body6 = "\x20\x01\x0d\xb8" + zero8 + "\x00\x00\x00\x07" + "\x20\x01\x0d\xb8" + zero8 + "\x00\x00\x00\x01" + "\x0f\xa0\x04\x1f"
)

// headers are what a sender may begin with.
func headers(t testing.TB) []struct{ name, send, client, err string } {
	noTLV := proxyproto.TLV{Type: 4, Value: make([]byte, 100)} // PP2_TYPE_NOOP
	bigTLV := proxyproto.TLV{Type: 4, Value: make([]byte, 60000)}
	mapped6 := zero8 + "\x00\x00\xff\xff\xc0\x00\x02\x07" + zero8 + "\x00\x00\xff\xff\xc0\x00\x02\x01" + "\x0f\xa0\x04\x1f"
	return []struct{ name, send, client, err string }{
		{"v1_ipv4", sent(t, 1, "192.0.2.7:4000", "192.0.2.1:1055"), "192.0.2.7:4000", ""},
		{"v1_ipv6", sent(t, 1, "[2001:db8::7]:4000", "[2001:db8::1]:1055"), "[2001:db8::7]:4000", ""},
		{"v1_mapped", "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 4000 1055\r\n", "192.0.2.7:4000", ""},
		{"v1_longest", "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", "", "not a client's address"},
		{"v1_unknown", "PROXY UNKNOWN\r\n", "", ""},
		{"v1_unknown_longest", "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", "", ""},
		{"v1_port_0", "PROXY TCP4 192.0.2.7 192.0.2.1 0 0\r\n", "192.0.2.7:0", ""},
		{"v1_without_cr", "PROXY TCP4 192.0.2.7 192.0.2.1 4000 1055\n", "", "without a CR"},
		{"v1_too_long", "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", "", "longer than 107 bytes"},
		{"v1_endless", "PROXY " + strings.Repeat("x", 5000), "", "longer than 107 bytes"},
		{"v1_no_protocol", "PROXY \r\n", "", `unknown protocol ""`},
		{"v1_udp", "PROXY UDP4 192.0.2.7 192.0.2.1 4000 1055\r\n", "", `unknown protocol "UDP4"`},
		{"v1_lower_case", "PROXY tcp4 192.0.2.7 192.0.2.1 4000 1055\r\n", "", `unknown protocol "tcp4"`},
		{"v1_few_words", "PROXY TCP4 192.0.2.7 192.0.2.1 4000\r\n", "", "5 words"},
		{"v1_many_words", "PROXY TCP4 192.0.2.7 192.0.2.1 4000 1055 x\r\n", "", "7 words"},
		{"v1_two_spaces", "PROXY TCP4  192.0.2.7 192.0.2.1 4000 1055\r\n", "", "7 words"},
		{"v1_other_family", "PROXY TCP4 2001:db8::7 192.0.2.1 4000 1055\r\n", "", `invalid address "2001:db8::7"`},
		{"v1_other_family_of_6", "PROXY TCP6 192.0.2.7 192.0.2.1 4000 1055\r\n", "", `invalid address "192.0.2.7"`},
		{"v1_mapped_as_4", "PROXY TCP4 ::ffff:192.0.2.7 192.0.2.1 4000 1055\r\n", "", "invalid address"},
		{"v1_zone", "PROXY TCP6 fe80::7%eth0 2001:db8::1 4000 1055\r\n", "", "invalid address"},
		{"v1_octal", "PROXY TCP4 192.0.02.7 192.0.2.1 4000 1055\r\n", "", "invalid address"},
		{"v1_name", "PROXY TCP4 localhost 192.0.2.1 4000 1055\r\n", "", "invalid address"},
		{"v1_bad_proxy_address", "PROXY TCP4 192.0.2.7 x 4000 1055\r\n", "", `invalid address "x"`},
		{"v1_port_too_large", "PROXY TCP4 192.0.2.7 192.0.2.1 65536 1055\r\n", "", `invalid port "65536"`},
		{"v1_port_with_zero", "PROXY TCP4 192.0.2.7 192.0.2.1 04000 1055\r\n", "", `invalid port "04000"`},
		{"v1_port_with_sign", "PROXY TCP4 192.0.2.7 192.0.2.1 +4000 1055\r\n", "", `invalid port "+4000"`},
		{"v1_port_of_proxy", "PROXY TCP4 192.0.2.7 192.0.2.1 4000 x\r\n", "", `invalid port "x"`},
		{"v1_unspecified", "PROXY TCP4 0.0.0.0 192.0.2.1 4000 1055\r\n", "", "0.0.0.0 is not a client's address"},
		{"v1_multicast", "PROXY TCP4 224.0.0.1 192.0.2.1 4000 1055\r\n", "", "224.0.0.1 is not a client's address"},

		{"v2_ipv4", sent(t, 2, "192.0.2.7:4000", "192.0.2.1:1055"), "192.0.2.7:4000", ""},
		{"v2_ipv6", sent(t, 2, "[2001:db8::7]:4000", "[2001:db8::1]:1055"), "[2001:db8::7]:4000", ""},
		{"v2_mapped", binaryHeader(0x21, tcp6, mapped6), "192.0.2.7:4000", ""},
		{"v2_tlv", sent(t, 2, "192.0.2.7:4000", "192.0.2.1:1055", noTLV), "192.0.2.7:4000", ""},
		{"v2_tlv_ipv6", sent(t, 2, "[2001:db8::7]:4000", "[2001:db8::1]:1055", noTLV, noTLV), "[2001:db8::7]:4000", ""},
		{"v2_tlv_60000", sent(t, 2, "192.0.2.7:4000", "192.0.2.1:1055", bigTLV), "192.0.2.7:4000", ""},
		{"v2_longest", binaryHeader(0x21, tcp4, body4+strings.Repeat("x", 65535-len(body4))), "192.0.2.7:4000", ""},
		{"v2_local", binaryHeader(0x20, 0, ""), "", ""},
		{"v2_local_with_addresses", binaryHeader(0x20, tcp4, body4), "", ""},
		{"v2_local_of_any_family", binaryHeader(0x20, 0xff, "xyz"), "", ""},
		{"v2_unspec", binaryHeader(0x21, 0, ""), "", ""},
		{"v2_unspec_with_tlv", binaryHeader(0x21, 0, "\x04\x00\x01\x00"), "", ""},
		{"v2_unix", binaryHeader(0x21, 0x31, strings.Repeat("/", 216)), "", ""},
		{"v2_unix_datagram", binaryHeader(0x21, 0x32, strings.Repeat("/", 216)), "", ""},
		{"v2_udp4", binaryHeader(0x21, 0x12, body4), "", ""},
		{"v2_udp6", binaryHeader(0x21, 0x22, body6), "", ""},
		{"v2_ipv4_unspec", binaryHeader(0x21, 0x10, body4), "", ""},
		{"v2_version_1", binaryHeader(0x11, tcp4, body4), "", "unknown version 1"},
		{"v2_version_3", binaryHeader(0x31, tcp4, body4), "", "unknown version 3"},
		{"v2_command", binaryHeader(0x22, tcp4, body4), "", "unknown command 2"},
		{"v2_family", binaryHeader(0x21, 0x41, body4), "", "unknown address family 0x41"},
		{"v2_protocol", binaryHeader(0x21, 0x13, body4), "", "unknown address family 0x13"},
		{"v2_short_ipv4", binaryHeader(0x21, tcp4, body4[1:]), "", "11 bytes are too few"},
		{"v2_short_ipv6", binaryHeader(0x21, tcp6, body6[1:]), "", "35 bytes are too few"},
		{"v2_short_unix", binaryHeader(0x21, 0x31, body6), "", "36 bytes are too few"},
		{"v2_unspecified", binaryHeader(0x21, tcp6, zero8+zero8+zero8+zero8+"\x00\x01\x00\x02"), "", ":: is not a client's address"},

		{"http", "GET / HTTP/1.1\r\n\r\n", "", "no PROXY header"},
		{"http_post", "POST / HTTP/1.1\r\n\r\n", "", "no PROXY header"},
		{"http_empty_line", "\r\nGET / HTTP/1.1\r\n\r\n", "", "no PROXY header"},
		{"http_of_a_method_PROXY", "PROXYX / HTTP/1.1\r\n\r\n", "", "no PROXY header"},
		{"socks5", "\x05\x01\x00", "", "no PROXY header"},
		{"tls", "\x16\x03\x01", "", "no PROXY header"},
		{"nearly_v2", signature2[:11] + "x", "", "no PROXY header"},
	}
}

// TestRead checks what headers say, and that what follows one stays in the connection,
// in one packet or byte by byte.
func TestRead(t *testing.T) {
	const rest = "\x05\x01\x00 the client's own bytes"
	for _, c := range headers(t) {
		for _, piece := range []int{1 << 20, 1} {
			if piece == 1 && len(c.send) > 1000 {
				continue
			}
			t.Run(c.name+map[int]string{1: "_bytewise"}[piece], func(t *testing.T) {
				client, server := testkit.TCPPair(t)
				client.SetNoDelay(true)
				go func() {
					for part := range slices.Chunk([]byte(c.send+rest), piece) {
						client.Write(part)
					}
					client.CloseWrite()
				}()
				got, err := Read(server)
				if c.err != "" {
					if err == nil || flow.ClassOf(err) != flow.BadRequest || !strings.Contains(err.Error(), c.err) || flow.HintOf(err) == "" {
						t.Errorf("Read = %v, %v; want class %v with %q and a hint", got, err, flow.BadRequest, c.err)
					}
				} else if err != nil || got.IsValid() != (c.client != "") || got.IsValid() && got.String() != c.client {
					t.Errorf("Read = %v, %v; want %q", got, err, c.client)
				}
				want := rest
				if strings.Contains(c.err, "no PROXY header") || strings.Contains(c.err, "longer than") {
					want = c.send + rest
				}
				if strings.Contains(c.err, "unknown version") { // where the header ends is not known
					want = c.send[headSize:] + rest
				}
				if b, err := io.ReadAll(server); err != nil || string(b) != want {
					t.Errorf("after the header %d bytes are left, %v; want %d", len(b), err, len(want))
				}
			})
		}
	}
}

// TestReadEnds checks senders that leave or stop within a header, at each of its bytes.
func TestReadEnds(t *testing.T) {
	for name, header := range map[string]string{
		"v1": sent(t, 1, "192.0.2.7:4000", "192.0.2.1:1055"),
		"v2": sent(t, 2, "192.0.2.7:4000", "192.0.2.1:1055", proxyproto.TLV{Type: 4, Value: make([]byte, 60)}),
	} {
		for n := range header {
			client, server := testkit.TCPPair(t)
			io.WriteString(client, header[:n])
			client.CloseWrite()
			if a, err := Read(server); flow.ClassOf(err) != flow.Canceled {
				t.Errorf("%s: Read of the first %d bytes = %v, %v; want class %v", name, n, a, err, flow.Canceled)
			}
			client.Close()
			server.Close()
		}
		for _, n := range []int{0, 3, len(header) - 1} {
			client, server := testkit.TCPPair(t)
			io.WriteString(client, header[:n])
			server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if a, err := Read(server); flow.ClassOf(err) != flow.Timeout {
				t.Errorf("%s: Read of the first %d bytes, then silence = %v, %v; want class %v", name, n, a, err, flow.Timeout)
			}
		}
	}
}

// FuzzParse compares with the library, which is less strict: what Read accepts, it
// reads in the same way.
func FuzzParse(f *testing.F) {
	for _, h := range headers(f) {
		if len(h.send) < 1000 {
			f.Add([]byte(h.send))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parse(b)
		if errors.Is(err, errShort) {
			return
		}
		if err != nil {
			if flow.ClassOf(err) != flow.BadRequest || flow.HintOf(err) == "" {
				t.Fatalf("parse(%q): %v, want class %v and a hint", b, err, flow.BadRequest)
			}
			return
		}
		if !got.IsValid() {
			return // the library rejects some of these
		}
		h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(b), 1<<17))
		if err != nil {
			t.Fatalf("parse(%q) = %v, the library: %v", b, got, err)
		}
		client, _, ok := h.TCPAddrs()
		if want := client.AddrPort(); !ok || netip.AddrPortFrom(want.Addr().Unmap(), want.Port()) != got {
			t.Fatalf("parse(%q) = %v, the library: %v", b, got, h.SourceAddr)
		}
	})
}

var errShort = errors.New("the header is not complete")

// parse is Read for bytes.
func parse(b []byte) (netip.AddrPort, error) {
	if len(b) == 0 {
		return netip.AddrPort{}, errShort
	}
	switch Detect(b) {
	case Version1:
		end := bytes.IndexByte(b, '\n')
		if end < 0 || end >= maxLine {
			return netip.AddrPort{}, errShort
		}
		return parseLine(string(b[:end+1]))
	case Version2:
		if len(b) < headSize || b[12]>>4 != 2 {
			return netip.AddrPort{}, errShort
		}
		size := int(binary.BigEndian.Uint16(b[14:]))
		if len(b) < headSize+size {
			return netip.AddrPort{}, errShort
		}
		return parseBinary(b[:headSize], b[headSize:headSize+min(size, 36)], size)
	}
	return netip.AddrPort{}, errShort
}
