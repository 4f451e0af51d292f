package stock

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// upFlags reads flags of "tailscale up".
func (r *reader) upFlags(v string) error {
	t := &r.cfg.Tailnet
	fs := newFlagSet("tailscale up")
	fs.BoolVar(&t.AcceptRoutes, "accept-routes", t.AcceptRoutes, "")
	fs.BoolVar(&r.cfg.Resolve.Tailnet, "accept-dns", r.cfg.Resolve.Tailnet, "")
	fs.BoolVar(&t.ShieldsUp, "shields-up", t.ShieldsUp, "")
	fs.StringVar(&t.ControlURL, "login-server", t.ControlURL, "")
	fs.StringVar(&t.Hostname, "hostname", t.Hostname, "")
	fs.Func("auth-key", "", r.authKey)
	fs.Func("authkey", "", r.authKey)
	fs.Func("client-secret", "", r.clientSecret)
	fs.Func("advertise-routes", "", r.routes)
	fs.Func("advertise-tags", "", r.tags)
	r.ignoreFlags(fs, "timeout", "netfilter-mode", "operator", "accept-risk", "qr-format")
	r.ignoreBoolFlags(fs, "snat-subnet-routes", "stateful-filtering", "host-routes", "reset", "qr", "json")
	refuseFlags(fs, map[string]string{
		"exit-node": "exit nodes are not supported; let a subnet router carry the networks that you need",
		"client-id": useKeys,
		"id-token":  useKeys,
		"audience":  useKeys,
	})
	refuseBoolFlags(fs, map[string]string{
		"exit-node-allow-lan-access": "exit nodes are not supported",
		"advertise-exit-node":        "Pando cannot be an exit node",
		"advertise-connector":        "Pando cannot be an app connector",
		"ssh":                        "Pando has no SSH server",
		"force-reauth":               "delete the state Secret to get a new device",
		"report-posture":             "Pando does not report posture",
	})
	return parseFlags(fs, v)
}

func (r *reader) tags(v string) error {
	tags := list(v)
	for i, tag := range tags {
		if !strings.HasPrefix(tag, "tag:") {
			tags[i] = "tag:" + tag
		}
	}
	r.cfg.Tailnet.Tags = tags
	return nil
}

// daemonFlags reads flags of tailscaled.
func (r *reader) daemonFlags(v string) error {
	t := &r.cfg.Tailnet
	fs := newFlagSet("tailscaled")
	fs.IntVar(&t.Port, "port", t.Port, "")
	fs.StringVar(&t.StateDir, "statedir", t.StateDir, "")
	fs.Func("tun", "", r.tun)
	fs.Func("state", "", r.state)
	fs.Func("verbose", "", r.verbose)
	fs.Func("socks5-server", "", r.proxy)
	fs.Func("outbound-http-proxy-listen", "", r.proxy)
	r.ignoreFlags(fs, "debug", "socket")
	r.ignoreBoolFlags(fs, "no-logs-no-support")
	return parseFlags(fs, v)
}

func (r *reader) tun(v string) error {
	t := &r.cfg.Tailnet
	if v == "userspace-networking" {
		t.Mode = "userspace"
		return nil
	}
	t.Mode = "kernel"
	t.TUN = v
	return nil
}

func (r *reader) state(v string) error {
	t := &r.cfg.Tailnet
	name, kube := strings.CutPrefix(v, "kube:")
	switch {
	case kube:
		t.KubeSecret = name
	case v == "mem:":
		t.KubeSecret = ""
		t.StateDir = ""
	default:
		return errors.New("only kube:NAME and mem: are supported; use TS_STATE_DIR for a directory")
	}
	return nil
}

func (r *reader) verbose(v string) error {
	n, err := strconv.Atoi(v)
	if err != nil {
		return errors.New("not a number")
	}
	if n > 0 {
		r.cfg.Log.Level = "debug"
	}
	return nil
}

func newFlagSet(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

func (r *reader) ignoreFlags(fs *flag.FlagSet, names ...string) {
	for _, name := range names {
		fs.Func(name, "", r.ignoring(name))
	}
}

func (r *reader) ignoreBoolFlags(fs *flag.FlagSet, names ...string) {
	for _, name := range names {
		fs.BoolFunc(name, "", r.ignoring(name))
	}
}

func (r *reader) ignoring(name string) func(string) error {
	return func(string) error {
		r.note("--%s has no meaning here and is ignored", name)
		return nil
	}
}

// refuseFlags adds flags that are errors unless their value is empty.
func refuseFlags(fs *flag.FlagSet, instead map[string]string) {
	for name, words := range instead {
		fs.Func(name, "", func(v string) error {
			if v == "" {
				return nil
			}
			return errors.New(words)
		})
	}
}

// refuseBoolFlags adds flags that are errors unless they are false.
func refuseBoolFlags(fs *flag.FlagSet, instead map[string]string) {
	for name, words := range instead {
		fs.BoolFunc(name, "", func(v string) error {
			if on, err := strconv.ParseBool(v); err == nil && !on {
				return nil
			}
			return errors.New(words)
		})
	}
}

// invalidValue matches the errors of package flag for an invalid value.
var invalidValue = regexp.MustCompile(`(?s)^invalid (?:boolean )?(?:value ".*" for )?(?:flag )?(-?[a-z0-9-]+): (.*)$`)

// parseFlags splits v at white space, as containerboot does. Its errors do not show
// values, which may be secrets: they name the flag and the problem.
func parseFlags(fs *flag.FlagSet, v string) error {
	words := strings.Fields(v)
	err := fs.Parse(words)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return errors.New("-help is not a setting")
	case err != nil:
		problem := err.Error()
		if m := invalidValue.FindStringSubmatch(problem); m != nil {
			problem = "flag -" + strings.TrimLeft(m[1], "-") + ": " + m[2]
		}
		return fmt.Errorf("%s: %s", fs.Name(), strings.Replace(problem, " -", " --", 1))
	case fs.NArg() > 0:
		return fmt.Errorf("%s: word %d is not a flag; separate flags by spaces, and write values as --flag=value", fs.Name(), len(words)-fs.NArg()+1)
	}
	return nil
}
