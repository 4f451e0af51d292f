// Package config is the gateway's configuration: Default, Load, Validate. It
// knows one YAML file, PANDO_* variables and flags, in that order of rising
// precedence, and reports every mistake at once, each with its path and what
// would be right. It knows neither Kubernetes nor Tailscale.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	goyaml "go.yaml.in/yaml/v2"
	"sigs.k8s.io/yaml"
)

// Config is the whole of it. The field tag doc is the reference page's text, and
// live:"yes" says that a running gateway takes over a change (of a section: of
// all its keys).
type Config struct {
	Listen  Listen  `json:"listen"`
	Tailnet Tailnet `json:"tailnet"`
	Resolve Resolve `json:"resolve"`
	DNS     DNS     `json:"dns"`
	SNI     []Port  `json:"sni" doc:"Ports for TLS clients that know of no proxy: the server name in the ClientHello is the target. Nothing is decrypted."`
	Web     []Port  `json:"web" doc:"Ports for plain-HTTP clients that know of no proxy: the Host of each request is its target."`
	Forward []Pipe  `json:"forward" doc:"Ports that stand for one target each, for databases and anything else."`
	Policy  Policy  `json:"policy" live:"yes"`
	Auth    Auth    `json:"auth"`
	Limits  Limits  `json:"limits" live:"yes"`
	Dial    Dial    `json:"dial"`
	HTTP    HTTP    `json:"http"`
	Tunnel  Tunnel  `json:"tunnel"`
	Probe   Probe   `json:"probe"`
	Drain   Drain   `json:"drain"`
	Log     Log     `json:"log"`
}

// Listen says where clients connect.
type Listen struct {
	Proxy     string   `json:"proxy" doc:"Address of the proxy port, host:port; an empty host means all addresses."`
	Also      []string `json:"also" doc:"More addresses where the same proxies listen."`
	Admin     string   `json:"admin" doc:"Address of the admin port: /livez, /readyz, /metrics, /status. Empty means none."`
	AdminAlso []string `json:"adminAlso" doc:"More addresses of the admin port."`
	DNS       string   `json:"dns" doc:"Address of the DNS answerer, over UDP and TCP, to which cluster DNS forwards the zones of dns.zones. Empty means none."`
	Pprof     bool     `json:"pprof" doc:"Serve Go's profiles at /debug/pprof/ on the admin port."`
	ReusePort bool     `json:"reusePort" doc:"Share the proxy port with other replicas on the same host (SO_REUSEPORT). Off, a port in use is an error."`
}

// Tailnet says which tailnet to join, and how.
type Tailnet struct {
	Mode             string   `json:"mode" doc:"userspace (no privilege) or kernel (a TUN device; needs NET_ADMIN, Linux only)."`
	ControlURL       string   `json:"controlURL" doc:"Coordination server: Tailscale's own, or a Headscale."`
	Hostname         string   `json:"hostname" doc:"Device name on the tailnet. Empty means the host's name."`
	AuthKey          Secret   `json:"authKey" doc:"Auth key for the first login; or the secret of an OAuth client, as in clientSecret. Better kept in a file: authKeyFile."`
	AuthKeyFile      string   `json:"authKeyFile" doc:"File that holds the auth key. Not together with authKey."`
	ClientSecret     Secret   `json:"clientSecret" doc:"Secret of an OAuth client that mints an auth key whenever one is needed; wants tags. Better kept in a file: clientSecretFile. Options may follow it: ?ephemeral=false&preauthorized=true&baseURL=URL."`
	ClientSecretFile string   `json:"clientSecretFile" doc:"File that holds the OAuth client's secret."`
	Tags             []string `json:"tags" doc:"Tags of the device, tag:name each."`
	Ephemeral        bool     `json:"ephemeral" doc:"Log out at the end, and be forgotten by the tailnet when unseen."`
	AcceptRoutes     bool     `json:"acceptRoutes" doc:"Use the subnet routes that peers advertise."`
	AdvertiseRoutes  []string `json:"advertiseRoutes" doc:"Prefixes to carry for the tailnet, as a subnet router does."`
	ShieldsUp        bool     `json:"shieldsUp" doc:"Refuse connections that tailnet peers open towards this replica. Has no effect on one with advertiseRoutes."`
	KubeSecret       string   `json:"kubeSecret" doc:"Kubernetes Secret, in the pod's own namespace, for the device's keys; made if it is missing. Its field authkey is used where no other key is given. Not together with stateDir."`
	AuthOnce         bool     `json:"authOnce" doc:"Remove the field authkey from the Secret after the first login."`
	StateDir         string   `json:"stateDir" doc:"Directory for the device's keys. Without it and kubeSecret they stay in memory: a new device at each start."`
	CacheDir         string   `json:"cacheDir" doc:"Directory where the engine keeps the last network map, if the control server grants that (the node attribute cache-network-maps): with it a replica can start while the control server is away. Empty means stateDir, or none."`
	TUN              string   `json:"tun" doc:"Name of the TUN device in kernel mode."`
	Port             int      `json:"port" doc:"UDP port of the tailnet engine. 0 means any."`
	StartTimeout     Duration `json:"startTimeout" doc:"How long a request waits for the tailnet to come up before it is refused."`
	BootTimeout      Duration `json:"bootTimeout" doc:"End the process, with an error, when it is not on the tailnet after this long. 0s goes on trying."`
}

// Resolve says how names become addresses.
type Resolve struct {
	Hosts   map[string][]string `json:"hosts" live:"yes" doc:"Names, and *.suffix for all names below suffix, with their addresses. Asked first; then the pod's own /etc/hosts."`
	Zones   []Zone              `json:"zones" live:"yes" doc:"Suffixes with resolvers of their own, beside the tailnet's split-DNS routes and before those of the same suffix. The longest suffix decides."`
	Tailnet bool                `json:"tailnet" doc:"Use the tailnet's names: MagicDNS, the resolvers of its split-DNS routes, and its global resolvers, if it has any, for names that are neither these nor the cluster's."`
	Timeout Duration            `json:"timeout" doc:"Bound on one lookup, all its queries included."`
	MinTTL  Duration            `json:"minTTL" doc:"Answers are kept at least this long."`
	MaxTTL  Duration            `json:"maxTTL" doc:"Answers are kept at most this long."`
}

// Zone is a suffix with resolvers of its own.
type Zone struct {
	Suffix  string   `json:"suffix" doc:"The zone: its own name and all names below it."`
	Servers []string `json:"servers" doc:"Its resolvers: IP addresses, with a port where it is not 53."`
	Direct  bool     `json:"direct" doc:"Ask them through the pod's own network, in place of the tailnet."`
}

// DNS says what the answerer at listen.dns tells.
type DNS struct {
	Zones []ServedZone `json:"zones" doc:"The zones that are answered for; everything else is refused. Names below them are never asked of the pod's own resolver, which would ask Pando again."`
	Fleet []string     `json:"fleet" doc:"The fleet's own addresses, or names of it that the pod's resolver knows, such as pando.pando.svc: where the Service leads to the ports of sni, web and forward."`
	TTL   Duration     `json:"ttl" doc:"How long answers may be kept at most."`
}

// ServedZone is a zone that is answered for.
type ServedZone struct {
	Suffix string `json:"suffix" doc:"The zone: its own name and all names below it."`
	Answer string `json:"answer" doc:"fleet: the fleet's own addresses, so that clients come to it. real: the real ones, for clients that reach them by themselves or use a proxy. Empty means fleet."`
}

// Port is a port of a transparent front.
type Port struct {
	Listen string `json:"listen" doc:"Address of the port, host:port; an empty host means all addresses."`
	Port   int    `json:"port" doc:"The target's port: the one that clients believe to talk to. 0 means 443 under sni and 80 under web."`
}

// Pipe is a port that stands for one target.
type Pipe struct {
	Listen string `json:"listen" doc:"Address of the port, host:port; an empty host means all addresses."`
	Target string `json:"target" doc:"The target, host:port, such as db.internal.example.com:5432."`
}

// Policy says who may reach what.
type Policy struct {
	Direct string `json:"direct" doc:"Addresses that no peer routes: none is refused, public lets internet addresses go through the host's own network, any lets all but the never-allowed go."`
	Mode   string `json:"mode" doc:"enforce, or report: let pass what would be denied, and log it."`
	Rules  []Rule `json:"rules,omitempty" doc:"Rules in order; the first that matches decides. Without a match the request is allowed."`
}

// Rule is one line of the policy. Fields that are left out match everything, so
// they are written as they were read: not as null, which is refused.
type Rule struct {
	Name     string   `json:"name" doc:"Name for the log. Empty means the rule's number."`
	From     []string `json:"from,omitempty" doc:"Client addresses: prefixes or single addresses."`
	Names    []string `json:"names,omitempty" doc:"Target names: exact, or *.suffix for all names below suffix."`
	Prefixes []string `json:"prefixes,omitempty" doc:"Target addresses: prefixes or single addresses. A rule that denies has those inside NAT64, 6to4 and 4via6 addresses too."`
	Ports    []string `json:"ports,omitempty" doc:"Target ports: 443 or 8000-8099."`
	Action   string   `json:"action" doc:"allow or deny."`
}

// Auth says whether clients must give a password.
type Auth struct {
	UsersFile string `json:"usersFile" doc:"File of user:password lines that clients must know (HTTP Basic, SOCKS5). Empty asks nobody. Changes of its content apply without a restart."`
}

// Limits bound what clients can take of the gateway. 0 is no limit.
type Limits struct {
	Connections int `json:"connections" doc:"Client connections at a time, tunnels included. One more is told 503 and Retry-After, or SOCKS reply 1. 0 means no limit."`
	PerClient   int `json:"perClient" doc:"Of these, from one client address. 0 means no limit."`
	Dials       int `json:"dials" doc:"Connections to targets that are being opened at a time. 0 means no limit."`
}

// Dial bounds connecting.
type Dial struct {
	Timeout  Duration `json:"timeout" doc:"Bound on connecting to a target, all its addresses and attempts included."`
	Attempts int      `json:"attempts" doc:"How often a target's addresses are tried when its network says unreachable or its connection is reset. Never after a byte was sent."`
}

// HTTP bounds the HTTP front end.
type HTTP struct {
	HeaderTimeout  Duration `json:"headerTimeout" doc:"Bound on receiving a request's head."`
	IdleTimeout    Duration `json:"idleTimeout" doc:"How long a kept connection, of a client or to an origin, may wait for the next request."`
	BodyTimeout    Duration `json:"bodyTimeout" doc:"How long a client may pause in the middle of a request's body."`
	MaxHeaderBytes int      `json:"maxHeaderBytes" doc:"Size limit of a request's head, in bytes."`
	MaxHeaders     int      `json:"maxHeaders" doc:"Limit on the number of a request's header fields."`
}

// Tunnel bounds connections that have been opened.
type Tunnel struct {
	IdleTimeout Duration `json:"idleTimeout" doc:"A tunnel over which nothing moves for so long is ended, and a plain-HTTP exchange too. 0s lets them be."`
	PeerTimeout Duration `json:"peerTimeout" doc:"A client or target that acknowledges neither data nor keep-alives for so long is gone, and so is one that reads nothing while data waits for it (kernel sockets only). 0s leaves it to TCP: up to 16 minutes."`
}

// Probe has readiness depend on targets.
type Probe struct {
	Targets   []string `json:"targets" doc:"Targets, host:port, that a ready replica can connect to. They are dialled by the road that clients take, with 127.0.0.1 as the client for the policy."`
	Interval  Duration `json:"interval" doc:"Time between two probes of a target."`
	Failures  int      `json:"failures" doc:"So many failures in a row make a target, and the replica, not ready."`
	Successes int      `json:"successes" doc:"So many successes in a row make it ready again."`
}

// Drain says how the gateway stops.
type Drain struct {
	Settle  Duration `json:"settle" doc:"How long it still takes new connections after it said that it is not ready; up to twice as long while they keep coming."`
	Timeout Duration `json:"timeout" doc:"How long work in progress may go on after settle. 0s cuts it at once."`
}

// Log says what is written to standard error.
type Log struct {
	Level  string `json:"level" live:"yes" doc:"debug, info, warn or error."`
	Format string `json:"format" doc:"json or text."`
	Sample int    `json:"sample" live:"yes" doc:"Log one of so many flows that ended well; metrics count them all. Flows that failed, or that report mode would have denied, are never left out. All of them are at level info."`
}

// Default returns the configuration that applies where nothing else is said.
// It is the one place that knows the numbers.
func Default() Config {
	return Config{
		Listen:  Listen{Proxy: ":1055", Admin: ":9002"},
		Tailnet: Tailnet{Mode: "userspace", ControlURL: "https://controlplane.tailscale.com", AcceptRoutes: true, ShieldsUp: true, TUN: "tailscale0", StartTimeout: Duration(10 * time.Second)},
		Resolve: Resolve{Tailnet: true, Timeout: Duration(5 * time.Second), MinTTL: Duration(time.Second), MaxTTL: Duration(5 * time.Minute)},
		DNS:     DNS{TTL: Duration(5 * time.Second)},
		Policy:  Policy{Direct: "none", Mode: "enforce"},
		Limits:  Limits{Connections: 16384, PerClient: 4096, Dials: 2048},
		Dial:    Dial{Timeout: Duration(10 * time.Second), Attempts: 3},
		HTTP:    HTTP{HeaderTimeout: Duration(30 * time.Second), IdleTimeout: Duration(90 * time.Second), BodyTimeout: Duration(time.Minute), MaxHeaderBytes: 64 << 10, MaxHeaders: 256},
		Tunnel:  Tunnel{IdleTimeout: Duration(time.Hour), PeerTimeout: Duration(time.Minute)},
		Probe:   Probe{Interval: Duration(10 * time.Second), Failures: 3, Successes: 1},
		Drain:   Drain{Settle: Duration(5 * time.Second), Timeout: Duration(20 * time.Second)},
		Log:     Log{Level: "info", Format: "json", Sample: 1},
	}
}

// Load returns the configuration made of the defaults, the file at path (none
// when path is empty), the environment and the flags, given by key (see Keys).
// The error joins every mistake in all of them, those of Validate included.
func Load(path string, environ []string, flags map[string]string) (Config, error) {
	return LoadOver(Default(), path, environ, flags)
}

// LoadOver is Load with c in place of the defaults.
func LoadOver(c Config, path string, environ []string, flags map[string]string) (Config, error) {
	var errs []error
	if path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return c, fmt.Errorf("config file: %w", err)
		}
		if err := Parse(data, &c); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, applyEnv(&c, environ), applyFlags(&c, flags), c.Validate())
	return c, join(errs)
}

// Parse decodes a YAML document onto c. Keys that don't exist and values of
// the wrong kind are errors, all of them reported.
func Parse(data []byte, c *Config) error {
	docs := goyaml.NewDecoder(bytes.NewReader(data))
	for n := 0; ; n++ {
		var ignored any
		if docs.Decode(&ignored) != nil {
			break // the end, or a mistake that is reported below
		}
		if n > 0 {
			return errors.New("more than one YAML document: keep the one between the lines \"---\" that you mean")
		}
	}
	js, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		text := strings.NewReplacer("yaml: unmarshal errors:\n  ", "", "yaml: ", "").Replace(err.Error())
		return fmt.Errorf("not YAML: %s", text)
	}
	var doc any
	if err := yaml.Unmarshal(js, &doc); err != nil {
		return err
	}
	if doc == nil {
		return nil // an empty file
	}
	keys, ok := doc.(map[string]any)
	if !ok {
		return errors.New("document: not a mapping; write keys such as listen and tailnet, each with a colon")
	}
	nulls := emptyNulls(keys)
	dec, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result: c, TagName: "json", MatchName: func(a, b string) bool { return a == b },
		DecodeHook: decodeValue,
	})
	if err != nil {
		return err
	}
	// The decoder forgets the unknown keys beside a value of the wrong kind,
	// so they are looked for here.
	errs := []error{nulls, mistakes(dec.Decode(doc))}
	for _, path := range unknownKeys(doc, "") {
		errs = append(errs, fmt.Errorf("%s: no such key; use one of %s", path, strings.Join(siblings(path), ", ")))
	}
	return join(errs)
}

// emptyNulls makes the lists of a rule that are there, with nothing after the
// colon, empty ones: a template may have rendered so, and to decode them as if
// they were left out would have the rule match everything. Rules that are there in
// that way are an error: where there are none, everything is allowed.
func emptyNulls(doc map[string]any) error {
	policy, _ := doc["policy"].(map[string]any)
	if v, there := policy["rules"]; there && v == nil {
		return errors.New("policy.rules: there is nothing after the colon; write [] if there are to be no rules")
	}
	rules, _ := policy["rules"].([]any)
	for _, r := range rules {
		rule, _ := r.(map[string]any)
		for _, key := range []string{"from", "names", "prefixes", "ports"} {
			if v, there := rule[key]; there && v == nil {
				rule[key] = []any{}
			}
		}
	}
	return nil
}

// unknownKeys lists the paths in v, which stands at path, that are no keys.
func unknownKeys(v any, path string) []string {
	var unknown []string
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			below := strings.TrimPrefix(path+"."+name, ".")
			switch k := element.ReplaceAllString(below, "[]"); {
			case slices.ContainsFunc(Keys(), func(x Key) bool { return x.Path == k && x.Type == "map" }): // names of the user's own
			case slices.ContainsFunc(Keys(), func(x Key) bool {
				return x.Path == k || strings.HasPrefix(x.Path, k+".")
			}):
				unknown = append(unknown, unknownKeys(v[name], below)...)
			default:
				unknown = append(unknown, below)
			}
		}
	case []any:
		for i, e := range v {
			unknown = append(unknown, unknownKeys(e, fmt.Sprintf("%s[%d]", path, i))...)
		}
	}
	return unknown
}

// decodeValue turns YAML scalars into our own types, and says what is wrong
// with a value of the wrong kind. It never repeats a string: it may be a secret.
func decodeValue(from, to reflect.Type, v any) (any, error) {
	kinds := map[reflect.Kind]string{reflect.Map: "a mapping", reflect.Slice: "a list", reflect.String: "a string", reflect.Float64: "a number", reflect.Bool: "true or false"}
	is := func(want ...reflect.Kind) bool { return slices.Contains(want, from.Kind()) }
	wrong := func(instead string) error {
		return fmt.Errorf("%s is wrong here; write %s", kinds[from.Kind()], instead)
	}
	switch {
	case to == reflect.TypeFor[Duration]():
		s, ok := v.(string)
		if !ok {
			return nil, wrong("a number with its unit, such as 10s or 2m")
		}
		return parseDuration(s)
	case to.Kind() == reflect.Int:
		if f, ok := v.(float64); !ok || f != float64(int(f)) {
			return nil, wrong("a whole number")
		}
	case to.Kind() == reflect.Bool && !is(reflect.Bool):
		return nil, wrong("true or false, without quotes")
	case to.Kind() == reflect.String && !is(reflect.String):
		return nil, wrong("a string, in quotes if need be")
	case to.Kind() == reflect.Slice && !is(reflect.Slice):
		return nil, wrong("a list, such as [a, b]")
	case (to.Kind() == reflect.Struct || to.Kind() == reflect.Map) && !is(reflect.Map):
		return nil, wrong("a mapping: keys on lines of their own, indented")
	}
	return v, nil
}

// mistakes puts each of the decoder's errors on a line of ours, path first.
func mistakes(err error) error {
	if all, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		var list []error
		for _, e := range all.Unwrap() {
			list = append(list, mistakes(e))
		}
		return errors.Join(list...)
	}
	if e, ok := errors.AsType[*mapstructure.DecodeError](err); ok {
		return fmt.Errorf("%s: %w", e.Name(), e.Unwrap())
	}
	return err
}

var element = regexp.MustCompile(`\[\d+\]`)

// siblings lists the keys that exist beside path.
func siblings(path string) []string {
	path = element.ReplaceAllString(path, "[]")
	prefix := path[:strings.LastIndexByte(path, '.')+1]
	var names []string
	for _, k := range Keys() {
		if rest, ok := strings.CutPrefix(k.Path, prefix); ok {
			name, _, _ := strings.Cut(rest, ".")
			if name = strings.TrimSuffix(name, "[]"); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// join flattens errs into one error with a mistake on each line, or nil.
func join(errs []error) error {
	var flat []error
	var walk func(error)
	walk = func(err error) {
		if err == nil {
			return
		}
		if m, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range m.Unwrap() {
				walk(e)
			}
			return
		}
		flat = append(flat, err)
	}
	for _, e := range errs {
		walk(e)
	}
	return errors.Join(flat...)
}

// Duration is a time.Duration that is written as "10s" or "2m30s".
type Duration time.Duration

// MarshalText writes d as time.Duration prints it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

func parseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration; write a number and a unit, such as 10s or 2m", s)
	}
	return Duration(d), nil
}

// Secret is a string that logs and prints as "[redacted]".
type Secret string

const redacted = "[redacted]"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString, MarshalText and LogValue keep every way of printing from showing it.
func (s Secret) GoString() string             { return s.String() }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(s.String()) }

// ReadAuthKey returns the auth key, from wherever it is kept; empty means none.
func (t Tailnet) ReadAuthKey() (Secret, error) {
	return readSecret("tailnet.authKeyFile", t.AuthKey, t.AuthKeyFile)
}

// ReadClientSecret returns the OAuth client's secret; empty means none.
func (t Tailnet) ReadClientSecret() (Secret, error) {
	return readSecret("tailnet.clientSecretFile", t.ClientSecret, t.ClientSecretFile)
}

// secretFileError is a file of secrets that can't be read.
type secretFileError struct{ error }

// OnlySecretFiles reports whether err is nothing but files of secrets that
// can't be read. A login that has been made does not need them.
func OnlySecretFiles(err error) bool {
	switch e := err.(type) { // the whole tree, not a chain
	case nil:
		return false
	case secretFileError:
		return true
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(err error) bool { return !OnlySecretFiles(err) })
	case interface{ Unwrap() error }:
		return OnlySecretFiles(e.Unwrap())
	}
	return false
}

func readSecret(path string, value Secret, file string) (Secret, error) {
	if file == "" {
		return value, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", fmt.Errorf("%s: %s is empty", path, file)
	}
	return Secret(s), nil
}
