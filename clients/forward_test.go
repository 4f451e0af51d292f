//go:build clients && linux

package clients

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// db is the name of the databases behind the tailnet.
const db = "db." + testnet.Zone

// database is a server behind the tailnet, and its client, which has no proxy setting:
// it connects to a port of forward.
type database struct {
	name    string
	setting string
	needs   []string
	version []string
	// prepare returns the commands that make the server's files in dir. serve returns the
	// command that runs it at an address.
	prepare func(dir string) [][]string
	serve   func(dir, port string) []string
	// ask returns the command that runs a statement through a port, over TLS.
	ask  func(s *site, port string) []string
	says *regexp.Regexp // as in client
}

// nobody is the user that the servers run as: they refuse to run as root.
const nobody = 65534

func postgresBin(name string) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		return "/usr/lib/postgresql/" + name
	}
	return found[len(found)-1]
}

func databases() []database {
	return []database{
		{
			name:    "psql",
			setting: "`host=db… sslmode=verify-full`",
			needs:   []string{postgresBin("postgres"), "psql"},
			version: []string{"psql", "--version"},
			says:    regexp.MustCompile(`^psql: .* failed`), // then: closed, or reset
			prepare: func(dir string) [][]string {
				return [][]string{
					{postgresBin("initdb"), "-D", dir + "/data", "-U", "me", "-A", "trust", "--no-sync"},
					{"sh", "-c", "echo 'hostssl all all 127.0.0.1/32 trust' > data/pg_hba.conf"},
				}
			},
			serve: func(dir, port string) []string {
				return []string{postgresBin("postgres"), "-D", dir + "/data", "-h", "127.0.0.1", "-p", port, "-k", "", "-c", "fsync=off",
					"-c", "ssl=on", "-c", "ssl_cert_file=" + dir + "/cert.pem", "-c", "ssl_key_file=" + dir + "/key.pem"}
			},
			ask: func(s *site, port string) []string {
				return []string{"psql", "-X", "-A", "-t", "host=" + db + " hostaddr=127.0.0.1 port=" + port + " user=me dbname=postgres sslmode=verify-full sslrootcert=" + s.dir + "/db-ca.pem"}
			},
		},
		{
			name:    "mysql (MariaDB)",
			setting: "`--host`, `--ssl-verify-server-cert`",
			needs:   []string{"mariadbd", "mariadb-install-db", "mariadb"},
			version: []string{"mariadbd", "--version"},
			says:    regexp.MustCompile(`^ERROR 20`), // 2002 or 2013, as the reset comes earlier or later
			prepare: func(dir string) [][]string {
				return [][]string{{"mariadb-install-db", "--no-defaults", "--datadir=" + dir + "/data", "--auth-root-authentication-method=normal", "--skip-test-db"}}
			},
			serve: func(dir, port string) []string {
				return []string{"mariadbd", "--no-defaults", "--datadir=" + dir + "/data", "--bind-address=127.0.0.1", "--port=" + port, "--socket=" + dir + "/socket", "--pid-file=" + dir + "/pid",
					"--skip-name-resolve", "--max-allowed-packet=64M", "--ssl-cert=" + dir + "/cert.pem", "--ssl-key=" + dir + "/key.pem"}
			},
			ask: func(s *site, port string) []string {
				return []string{"mariadb", "--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--port=" + port, "--user=root", "--batch", "--raw", "--skip-column-names",
					"--max-allowed-packet=64M", "--connect-timeout=60", "--ssl-ca=" + s.dir + "/db-ca.pem", "--ssl-verify-server-cert"}
			},
		},
	}
}

// missingNeed returns what a database needs and does not find; "" if nothing.
func (d *database) missingNeed() string { return (&client{needs: d.needs}).missingNeed() }

// forwardTargets starts the databases, and returns the targets of the ports of forward
// by name: those of the databases, and those that Pando refuses.
func (s *site) forwardTargets(t *testing.T) map[string]config.Target {
	t.Helper()
	s.cloud.SetRecord(db, testnet.APIAddr)
	cert, ca, err := testnet.Certificate(db, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "db-ca.pem"), ca, 0o644); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}
	targets := map[string]config.Target{
		colDenied:  {Host: denied, Port: 5432},
		colUnknown: {Host: missing, Port: 5432},
		colRefused: {Host: refused, Port: 5432},
	}
	for _, d := range databases() {
		if d.missingNeed() != "" {
			continue // its row says so
		}
		server := startDatabase(t, d, files)
		behind := s.cloud.Serve(func(c net.Conn) { // the site's own network
			defer c.Close()
			conn, err := net.Dial("tcp", server)
			if err != nil {
				return
			}
			defer conn.Close()
			go func() { // ends with c
				io.Copy(conn, c)
				conn.(*net.TCPConn).CloseWrite()
			}()
			io.Copy(c, conn)
		})
		targets[d.name] = config.Target{Host: db, Port: behind.Port()}
	}
	return targets
}

// startDatabase runs a server on loopback until the test ends, and returns its address.
func startDatabase(t *testing.T, d database, files map[string][]byte) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pando-clients-db-") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	program := func(args []string, log io.Writer) *exec.Cmd {
		c := exec.Command(find(args[0]), args[1:]...)
		c.Dir = dir
		c.Env = []string{"PATH=" + searchPath, "LC_ALL=C", "HOME=" + dir, "TMPDIR=" + dir}
		c.Stdout = log
		c.Stderr = log
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return c
	}
	for _, args := range d.prepare(dir) {
		var log bytes.Buffer
		if err := program(args, &log).Run(); err != nil {
			t.Fatalf("%s: %v\n%s", args[0], err, log.String())
		}
	}
	addr := testkit.FreePorts(t, 1)[0]
	_, port, _ := net.SplitHostPort(addr)
	var log testkit.Buffer
	server := program(d.serve(dir, port), &log)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	t.Cleanup(func() {
		signal := syscall.SIGTERM
		if d.name == "psql" {
			signal = syscall.SIGINT // fast shutdown
		}
		server.Process.Signal(signal)
		<-ended
	})
	listens := func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if !eventually(listens) {
		t.Fatalf("the server of %s does not listen:\n%s", d.name, log.String())
	}
	return addr
}

// forwardCell returns what a column says about the client of a database.
func (s *site) forwardCell(t *testing.T, d database, column string) (string, error) {
	t.Helper()
	port := d.name
	statement := "select 'answer';\n"
	switch column {
	case colBulk:
		statement = "select '" + string(s.payload) + "';\n"
	case colDenied, colUnknown, colRefused:
		port = column
	}
	_, number, _ := net.SplitHostPort(s.forward[port])
	r := s.run(t, proxy{"http", s.proxy}, command{args: d.ask(s, number), stdin: []byte(statement)})
	if port == column {
		if r.err == nil {
			return "", fmt.Errorf("it got an answer: %s", r.got)
		}
		said := strings.ReplaceAll(s.reads(d.says, r), number, "PORT")
		if said == "ERROR 20" {
			said = "ERROR 2002 (HY000): Can't connect to server, or ERROR 2013 (HY000): Lost connection to server"
		}
		return quoted(said), nil
	}
	want := []byte("answer")
	if column == colBulk {
		want = s.payload
	}
	if !bytes.Contains(r.got, want) {
		return "", fmt.Errorf("%d bytes came, %v: %s", len(r.got), r.err, r.said)
	}
	return "yes", nil
}
