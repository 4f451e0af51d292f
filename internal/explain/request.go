package explain

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pandoproxy/pando/internal/flow"
	"github.com/pandoproxy/pando/internal/status"
)

// targetForm is the hint for a target that is neither a URL nor host:port.
const targetForm = "write a URL such as https://api.example.com/, or host:port"

// badRequest is the error of a request that is not valid.
func badRequest(hint string, err error) error {
	return &flow.Error{
		Class: flow.BadRequest,
		Op:    "explain",
		Hint:  hint,
		Err:   err,
	}
}

// parse checks the request and takes the flow's record from it.
func (x *explanation) parse() error {
	x.rec = flow.Record{Start: time.Now()}
	if err := x.parseClient(); err != nil {
		return err
	}
	if ca := x.request.CA; ca != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(ca)) {
		return badRequest("give authorities in PEM: -----BEGIN CERTIFICATE-----", errors.New("the CA contains no certificate"))
	}
	host, port, err := x.parseTarget()
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return badRequest("write a port from 1 to 65535", fmt.Errorf("invalid port %q", port))
	}
	x.rec.Host = host
	x.rec.Port = uint16(n)
	x.Flow = &x.rec
	return nil
}

func (x *explanation) parseClient() error {
	client, err := netip.ParseAddr(cmp.Or(x.request.Client, "127.0.0.1"))
	if err != nil {
		return badRequest("write the client's address, such as 10.244.1.7", err)
	}
	x.Client = client.String()
	x.rec.Client = netip.AddrPortFrom(client, 0)
	x.rec.Front = flow.Connect
	return nil
}

// parseTarget returns the host and the port of the target. For a URL it also
// sets what to ask for once the target is connected.
func (x *explanation) parseTarget() (host, port string, err error) {
	target := x.request.Target
	if strings.ContainsAny(target, " \t\r\n") {
		return "", "", badRequest(targetForm, errors.New("the target contains white space"))
	}
	if strings.Contains(target, "://") {
		return x.parseURL()
	}
	host, port, err = net.SplitHostPort(target)
	if err != nil {
		return "", "", badRequest(targetForm, err)
	}
	if strings.Contains(target, "/") {
		return "", "", badRequest(targetForm, errors.New("the target is neither of them"))
	}
	return host, port, nil
}

func (x *explanation) parseURL() (host, port string, err error) {
	u, err := url.Parse(x.request.Target)
	if err != nil {
		return "", "", badRequest(targetForm, err)
	}
	x.url = u
	x.Target = u.Redacted()
	defaultPort := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if defaultPort == "" {
		return "", "", badRequest("write http://…, https://…, or host:port", fmt.Errorf("unknown scheme %q", u.Scheme))
	}
	x.request.TLS = u.Scheme == "https"
	x.request.HTTP = true
	if !x.request.TLS {
		x.rec.Front = flow.HTTP
	}
	return u.Hostname(), cmp.Or(u.Port(), defaultPort), nil
}

// admit reports whether the client would be let in at the proxy port.
func (x *explanation) admit() bool {
	if err := x.Admits(x.rec.Client.Addr()); err != nil {
		x.fail("port", 0, err)
		return false
	}
	user, password, given := strings.Cut(x.request.User, ":")
	outcome := status.OK
	says := "a client at " + x.Client + " is let in"
	switch {
	case x.Password != nil && !given:
		outcome = status.Warn
		says = "clients must send a user and a password (auth.usersFile); give one with --user to test it"
	case x.Password != nil && !x.Password(user, password):
		x.fail("port", 0, &flow.Error{
			Class: flow.Unauthenticated,
			Op:    "auth",
			Hint:  "the user or the password is not in auth.usersFile",
			Err:   errors.New("wrong password for user " + user),
		})
		return false
	}
	x.rec.User = user
	x.add("port", outcome, 0, says)
	return true
}
