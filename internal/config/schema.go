package config

import "net/netip"

// The comments above the fields are the reference page and the help of the flags:
// after a change, run "make docs". A word in backquotes is a literal value. The
// tag live:"yes" marks what a running replica applies without a restart; on a
// section it marks all its keys.

// Config is the whole configuration of a replica.
type Config struct {
	// Where clients and operators connect to the replica.
	Listen Listen `json:"listen"`
	// Which tailnet the replica joins, and how.
	Tailnet Tailnet `json:"tailnet"`
	// How names become addresses.
	Resolve Resolve `json:"resolve"`
	// What the DNS server at listen.dns answers.
	DNS DNS `json:"dns"`
	// Ports for TLS clients that do not know about the proxy. The server name in the
	// ClientHello is the target. Nothing is decrypted.
	SNI []FrontPort `json:"sni"`
	// Ports for plain-HTTP clients that do not know about the proxy. The Host of each request
	// is its target.
	Web []FrontPort `json:"web"`
	// Ports that lead to one fixed target each, for databases and other protocols.
	Forward []ForwardPort `json:"forward"`
	// Which client may reach which target.
	Policy Policy `json:"policy" live:"yes"`
	// Whether clients must give a password.
	Auth Auth `json:"auth"`
	// How much clients can use at the same time.
	Limits Limits `json:"limits" live:"yes"`
	// How targets are connected to.
	Dial Dial `json:"dial"`
	// Time and size limits of HTTP requests.
	HTTP HTTP `json:"http"`
	// When open connections are closed.
	Tunnel Tunnel `json:"tunnel"`
	// Targets that a replica must reach to be ready.
	Probe Probe `json:"probe"`
	// How a replica stops.
	Drain Drain `json:"drain"`
	// What is written to standard error.
	Log Log `json:"log"`
}

// Listen is the section listen.
type Listen struct {
	// Address of the proxy port, host:port. HTTP, SOCKS5 and SOCKS4 share the port. An
	// empty host means all addresses.
	Proxy string `json:"proxy"`
	// More addresses, each as host:port, on which the replica listens as it does on proxy.
	Also []string `json:"also"`
	// Address of the admin port, which serves /livez, /readyz, /metrics and, for processes of
	// the same pod, /status. Empty means no admin port.
	Admin string `json:"admin"`
	// More addresses, each as host:port, on which the replica answers as it does on admin. If
	// admin is empty, it does not listen on them.
	AdminAlso []string `json:"adminAlso"`
	// Address of the DNS server for the zones in dns.zones, over UDP and TCP. Cluster DNS
	// forwards these zones to it. Empty means no DNS server.
	DNS string `json:"dns"`
	// The addresses of the fleet's replicas and of its Services, or names of them that the
	// pod's resolver knows, such as pando-replicas.pando.svc. A request for one of them would
	// come back to the fleet, so it is refused on every port. The chart sets it.
	Replicas []FleetHost `json:"replicas"`
	// Load balancers that say who their client is: prefixes or single addresses. Each connection
	// from there must begin with a header of the PROXY protocol, version 1 or 2. The address in
	// it is then the client's, for rules, limits and the log. A header from elsewhere is
	// refused. It applies to the ports for clients, of proxy, also, sni, web and forward; not to
	// dns and admin. Empty means that no header is accepted. List only load balancers: whoever
	// connects from there can take any address.
	ProxyProtocol []netip.Prefix `json:"proxyProtocol"`
	// Serve Go's profiles at /debug/pprof/ on the admin port, for processes of the same pod.
	Pprof bool `json:"pprof"`
	// Share the proxy port with other replicas on the same host (SO_REUSEPORT). If false, a
	// port in use is an error.
	ReusePort bool `json:"reusePort"`
}

// Tailnet is the section tailnet.
type Tailnet struct {
	// `userspace` or `kernel`. Userspace mode needs no privilege. Kernel mode uses a TUN device;
	// it needs NET_ADMIN and Linux.
	Mode string `json:"mode"`
	// URL of the control server: Tailscale's own, or that of a Headscale.
	ControlURL string `json:"controlURL"`
	// Device name on the tailnet. Empty means the host's name.
	Hostname string `json:"hostname"`
	// Key with which the device logs in: the first time, and again when its device key has
	// expired. The secret of an OAuth client works too, as in clientSecret. Prefer authKeyFile,
	// which keeps the key out of the configuration.
	AuthKey Secret `json:"authKey"`
	// File that holds the auth key. It cannot be set together with authKey.
	AuthKeyFile string `json:"authKeyFile"`
	// Secret of an OAuth client, which mints an auth key whenever one is needed. It requires
	// tags. Prefer clientSecretFile. Options can follow the secret:
	// ?ephemeral=false&preauthorized=true&baseURL=URL.
	ClientSecret Secret `json:"clientSecret"`
	// File that holds the OAuth client's secret. It cannot be set together with clientSecret.
	ClientSecretFile string `json:"clientSecretFile"`
	// Tags of the device, each as tag:name.
	Tags []string `json:"tags"`
	// MagicDNS suffix of the tailnet that the device must be in, such as tail1234.ts.net. In
	// another tailnet the replica is not ready and refuses all requests. Empty means any
	// tailnet.
	Expect string `json:"expect"`
	// Register as an ephemeral device: log out on exit. The control server deletes the device
	// once it is offline.
	Ephemeral bool `json:"ephemeral"`
	// Use the subnet routes that peers advertise.
	AcceptRoutes bool `json:"acceptRoutes"`
	// Prefixes that the replica advertises and carries for the tailnet, as a subnet router
	// does.
	AdvertiseRoutes []netip.Prefix `json:"advertiseRoutes"`
	// Refuse connections that tailnet peers open to this replica. It has no effect if
	// advertiseRoutes is set.
	ShieldsUp bool `json:"shieldsUp"`
	// Kubernetes Secret, in the pod's own namespace, that stores the device's keys. Pando
	// creates it if it does not exist. Its field authkey is used if no other key is set. It
	// cannot be set together with stateDir.
	KubeSecret string `json:"kubeSecret"`
	// Remove the field authkey from the Secret after the first login.
	AuthOnce bool `json:"authOnce"`
	// Directory that stores the device's keys. Without stateDir and kubeSecret the keys stay
	// in memory, and each start registers a new device.
	StateDir string `json:"stateDir"`
	// Directory in which the engine stores the last network map, so that a replica can start
	// while the control server is unreachable. The control server must grant this, with the
	// node attribute cache-network-maps. Empty means stateDir; if that is empty too, no map is
	// stored.
	CacheDir string `json:"cacheDir"`
	// Name of the TUN device in kernel mode.
	TUN string `json:"tun"`
	// UDP port of the tailnet engine. 0 means any free port.
	Port int `json:"port"`
	// How long a request waits for the tailnet to come up before it is refused. 0s refuses it
	// at once.
	StartTimeout Duration `json:"startTimeout"`
	// Exit with an error if the replica is not on the tailnet after this long. 0s means keep
	// trying.
	BootTimeout Duration `json:"bootTimeout"`
}

// Resolve is the section resolve.
type Resolve struct {
	// Host table: names and their addresses. `*.suffix` stands for all names below suffix. The
	// host table is used first, and the pod's own /etc/hosts second.
	Hosts map[string][]netip.Addr `json:"hosts" live:"yes"`
	// Zones with resolvers of their own, in addition to the tailnet's split-DNS routes. If
	// both have the same suffix, this list wins. The longest suffix decides which zone a name
	// belongs to.
	Zones []Zone `json:"zones" live:"yes"`
	// Resolve names with the DNS settings of the tailnet: its MagicDNS names, its split DNS,
	// and its global resolvers, if it has any. The global resolvers are asked for the other
	// names, except those of the cluster.
	Tailnet bool `json:"tailnet"`
	// What to do with public names that have private addresses. A public name is one that the
	// pod's resolvers or the tailnet's global resolvers answer, except names of the cluster.
	// `allow` uses these addresses: cloud databases and private endpoints have such names.
	// `deny` does not use them; if the name has no other address, the request is denied.
	PrivateAnswers string `json:"privateAnswers" live:"yes"`
	// Suffixes of public names that may have private addresses although privateAnswers is
	// `deny`, such as rds.amazonaws.com.
	PrivateZones []string `json:"privateZones" live:"yes"`
	// Time limit of one lookup, including all its queries. One server gets two fifths of it,
	// but at least 2 s and at most 5 s; then the next server is asked.
	Timeout Duration `json:"timeout"`
	// Shortest time for which an answer is cached.
	MinTTL Duration `json:"minTTL"`
	// Longest time for which an answer is cached.
	MaxTTL Duration `json:"maxTTL"`
}

// Zone is a suffix with resolvers of its own.
type Zone struct {
	// The zone: this name and all names below it.
	Suffix string `json:"suffix"`
	// The zone's resolvers: IP addresses, with a port if it is not 53.
	Servers []string `json:"servers"`
	// Reach these resolvers through the pod's own network instead of the tailnet.
	Direct bool `json:"direct"`
}

// DNS is the section dns.
type DNS struct {
	// Zones that the DNS server answers. It refuses all other names. Names in these zones are
	// never looked up with the pod's own resolver, which would ask Pando again.
	Zones []ServedZone `json:"zones"`
	// The fleet's own addresses, where the Service leads to the ports of sni, web and forward.
	// Write addresses, or names that the pod's resolver knows, such as pando.pando.svc.
	Fleet []FleetHost `json:"fleet"`
	// Longest time for which clients may cache an answer.
	TTL Duration `json:"ttl"`
}

// ServedZone is a zone that the DNS server answers.
type ServedZone struct {
	// The zone: this name and all names below it.
	Suffix string `json:"suffix"`
	// `fleet` answers with the fleet's own addresses, so that clients connect to the fleet.
	// `real` answers with the target's addresses, for clients that reach the target by
	// themselves or use a proxy. Empty means fleet.
	Answer string `json:"answer"`
}

// FrontPort is a port of the front sni or web.
type FrontPort struct {
	// Address of the port, host:port. An empty host means all addresses.
	Listen string `json:"listen"`
	// Port of the target, which Pando dials. 0 means 443 in sni and 80 in web. In web, a port
	// in the Host of a request comes first.
	Port int `json:"port"`
	// The names that clients may ask for on this port: exact names, or `*.suffix` for all names
	// below suffix. Empty means the zones in dns.zones, or every name if there are none. Bare
	// addresses are refused, unless `*` is in the list, which stands for every target.
	Serves []string `json:"serves"`
	// Accept every port in the Host of a request, not only the port above. It applies to web
	// only: a ClientHello has no port.
	AnyPort bool `json:"anyPort"`
	// The load balancers of this port, in place of listen.proxyProtocol. An empty list means
	// that this port accepts no header.
	ProxyProtocol []netip.Prefix `json:"proxyProtocol,omitzero"`
}

// ForwardPort is a port that leads to one target.
type ForwardPort struct {
	// Address of the port, host:port. An empty host means all addresses.
	Listen string `json:"listen"`
	// The target, host:port, such as db.internal.example.com:5432.
	Target Target `json:"target"`
	// The load balancers of this port, in place of listen.proxyProtocol. An empty list means
	// that this port accepts no header.
	ProxyProtocol []netip.Prefix `json:"proxyProtocol,omitzero"`
}

// Policy is the section policy.
type Policy struct {
	// What to do with addresses that no tailnet peer routes. `none`: refuse them all.
	// `public`: dial internet addresses through the pod's own network, but none in notPublic
	// or in a network of the pod's interfaces. `any`: dial everything except the addresses
	// that are always forbidden.
	Direct string `json:"direct"`
	// More prefixes that direct `public` does not open, such as the public addresses of nodes
	// and load balancers. They also count as private for resolve.privateAnswers.
	NotPublic []netip.Prefix `json:"notPublic"`
	// What to do with a request that no rule matches: `allow` or `deny`. With `deny`, a name
	// that no rule could allow is not looked up. Probes need a rule then, too.
	Default string `json:"default"`
	// `enforce` applies the rules. `report` allows what a rule or default would deny, and logs
	// it. Addresses that direct or Pando itself refuses stay refused.
	Mode string `json:"mode"`
	// Leave open connections and requests in progress alone when a reload changes the policy.
	// If false, they are judged again, and those that the new policy denies are cut.
	KeepOpen bool `json:"keepOpen"`
	// Rules in order. The first rule that matches decides. If no rule matches, default
	// decides.
	Rules []Rule `json:"rules,omitempty"`
}

// Rule is one rule of the policy. A field that is left out matches everything. It
// is marshalled as it was read, not as null, which Parse rejects.
type Rule struct {
	// Name for the log. Empty means the rule's number.
	Name string `json:"name"`
	// Client addresses: prefixes or single addresses.
	From []netip.Prefix `json:"from,omitempty"`
	// Target names: exact names, or `*.suffix` for all names below suffix.
	Names []string `json:"names,omitempty"`
	// Target addresses: prefixes or single addresses. In a rule that denies, they also match
	// inside NAT64, 6to4 and 4via6 addresses.
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	// Target ports: a port such as 443, or a range such as 8000-8099.
	Ports []PortRange `json:"ports,omitempty"`
	// `allow` or `deny`.
	Action string `json:"action"`
}

// Auth is the section auth.
type Auth struct {
	// File of user:password lines. The password is plain, or a bcrypt hash as `htpasswd -nB`
	// prints it. A client must give one of these pairs (HTTP Basic or SOCKS5). Empty means
	// that no password is required. A change of the file's content applies without a restart.
	UsersFile string `json:"usersFile"`
}

// Limits is the section limits.
type Limits struct {
	// Most client connections at the same time, including tunnels. Further connections get
	// HTTP status 503 with Retry-After, or SOCKS reply 1. 0 means no limit.
	Connections int `json:"connections"`
	// Most connections from one client address. 0 means no limit.
	PerClient int `json:"perClient"`
	// Most connections to targets that are being opened at the same time. A client gets a
	// share of them, and a target that does not answer a part. 0 means no limit.
	Dials int `json:"dials"`
	// Memory for what is held for clients, in MiB. 0 takes it from the container's memory
	// limit: five eighths of what exceeds 40 MiB, or 1024 without a limit. A client that
	// holds more than its share is refused first, then all new connections are.
	Memory int `json:"memory"`
	// How fast one client can go. By default nothing limits that.
	Rate Rate `json:"rate"`
}

// Rate is the section limits.rate.
type Rate struct {
	// Most new connections from one client address in a second. More of them wait, for one
	// second at most. The rest get HTTP status 503 with Retry-After, or SOCKS reply 1. 0 means
	// no limit.
	Connections int `json:"connections"`
	// Most bytes in a second of one client address in each direction, of all its tunnels and
	// bodies of HTTP together. It applies to those that begin after it was set. 0 means no
	// limit; the least is 65536.
	Bytes int `json:"bytes"`
}

// Dial is the section dial.
type Dial struct {
	// Time limit for connecting to a target, including all its addresses and attempts.
	Timeout Duration `json:"timeout"`
	// How often a target's addresses are tried if the network reports them unreachable or the
	// connection is reset. Nothing is tried again after a byte was sent. A request tries 6
	// addresses of a name and 8 connections at most.
	Attempts int `json:"attempts"`
}

// HTTP is the section http.
type HTTP struct {
	// Time limit for receiving the head of a request, or the ClientHello on a port of sni.
	HeaderTimeout Duration `json:"headerTimeout"`
	// How long an idle connection, of a client or to an origin, is kept open for the next
	// request.
	IdleTimeout Duration `json:"idleTimeout"`
	// How long a client may pause while it sends the body of a request.
	BodyTimeout Duration `json:"bodyTimeout"`
	// Size limit of the head of a request, in bytes.
	MaxHeaderBytes int `json:"maxHeaderBytes"`
	// Most header fields in a request.
	MaxHeaders int `json:"maxHeaders"`
	// Which requests use a connection to an origin that has served another request. `client`:
	// requests of the same client address and user. `shared`: requests of any client, until the
	// connection has carried a request with a body. `none`: no other request. With `shared`, a
	// hostile client and a faulty origin may find a way to change what another client gets.
	Reuse string `json:"reuse"`
	// Send requests for https:// URLs on over TLS, after the target's certificate was
	// verified. Some clients, such as BusyBox wget, send such requests to the proxy itself,
	// and not over CONNECT. Between the client and Pando they are not encrypted. If false,
	// they are refused with a hint.
	OriginTLS bool `json:"originTLS"`
	// File with more authorities whose certificates originTLS accepts, in PEM. Those that the
	// system trusts are always accepted. The file is read at the start.
	CAFile string `json:"caFile"`
}

// Tunnel is the section tunnel.
type Tunnel struct {
	// Close tunnels and plain-HTTP exchanges that carry no data for this long. 0s disables it.
	IdleTimeout Duration `json:"idleTimeout"`
	// Close tunnels that are older than this, idle or not. Up to a tenth of the time is taken
	// off at random, so that tunnels that began together do not end together. It lets load move
	// to new replicas. 0s disables it.
	MaxLife Duration `json:"maxLife"`
	// Close a connection if the client or the target acknowledges neither data nor keep-alives
	// for this long, or reads nothing while data waits for it (kernel sockets only). 0s leaves
	// this to TCP, which takes up to 16 minutes.
	PeerTimeout Duration `json:"peerTimeout"`
}

// Probe is the section probe.
type Probe struct {
	// Targets, host:port, that a ready replica can connect to. Probes pass policy and resolver
	// as client requests do; their client address is 127.0.0.1.
	Targets []Target `json:"targets"`
	// Time between two probes of a target.
	Interval Duration `json:"interval"`
	// Consecutive failures after which the target, and so the replica, is not ready.
	Failures int `json:"failures"`
	// Consecutive successes after which the target is ready again.
	Successes int `json:"successes"`
}

// Drain is the section drain.
type Drain struct {
	// How long the replica accepts new connections after it has reported that it is not ready.
	// It is up to twice as long while connections keep arriving.
	Settle Duration `json:"settle"`
	// How long work in progress may continue after settle. 0s cuts it at once.
	Timeout Duration `json:"timeout"`
}

// Log is the section log.
type Log struct {
	// Lowest level that is logged: `debug`, `info`, `warn` or `error`.
	Level string `json:"level" live:"yes"`
	// Form of the log: `json` or `text`.
	Format string `json:"format"`
	// Log one of this many flows that ended well. Metrics count them all. Flows that failed,
	// or that report mode would have denied, are always logged. All flows are logged at level
	// info.
	Sample int `json:"sample" live:"yes"`
}
