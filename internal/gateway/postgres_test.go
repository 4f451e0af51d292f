package gateway_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pandoproxy/pando/internal/config"
	"github.com/pandoproxy/pando/internal/nstest"
	"github.com/pandoproxy/pando/internal/tailnet"
	"github.com/pandoproxy/pando/internal/testkit"
	"github.com/pandoproxy/pando/internal/testnet"
)

// TestPostgreSQL checks that a real psql, which insists on TLS and verifies the
// server's certificate and name, reaches a real server behind the cloud node.
// The protocol turns to TLS in the middle. Nothing on the way has to know.
//
// It runs in userspace mode alone: PostgreSQL refuses to run as root, and the
// namespace of kernel mode has no right to become another user.
func TestPostgreSQL(t *testing.T) {
	if !nstest.Outside(t) {
		return
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		t.Skip("SKIPPED, NOT TESTED: PostgreSQL is not installed; make deps, as root on Debian, does it")
	}
	bin := filepath.Dir(found[len(found)-1])
	w := ownTailnet(t, tailnet.Userspace)
	const host = "db." + testnet.Zone
	w.cloud.SetRecord(host, testnet.APIAddr)
	server, ca := startPostgres(t, bin, host)
	target := w.cloud.Serve(func(c net.Conn) { // the site's own network
		defer c.Close()
		db, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer db.Close()
		go func() { io.Copy(db, c); db.(*net.TCPConn).CloseWrite() }() // ends with c
		io.Copy(c, db)
	})
	port := testkit.FreePorts(t, 1)[0]
	r := w.start(t, func(c *config.Config) {
		c.Forward = []config.ForwardPort{{Listen: port, Target: config.Target{Host: host, Port: target.Port()}}}
	})
	_, portNumber, _ := net.SplitHostPort(port)
	psql := func(sslmode string) (string, error) {
		cmd := exec.CommandContext(testkit.Within(t, time.Minute), filepath.Join(bin, "psql"), "-X", "-A", "-t", "-c",
			"select count(*), pg_size_pretty(sum(length(repeat('x', 1000)))) from generate_series(1, 100000); select ssl, version from pg_stat_ssl where pid = pg_backend_pid()",
			"host="+host+" hostaddr=127.0.0.1 port="+portNumber+" user=pando dbname=postgres sslmode="+sslmode+" sslrootcert="+ca)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := psql("verify-full")
	if err != nil || !strings.Contains(out, "100000|95 MB\nt|TLSv1.3\n") {
		t.Errorf("psql: %v, printed\n%s\nwant 100000 rows over TLS 1.3", err, out)
	}
	if out, err := psql("disable"); err == nil || !strings.Contains(out, "no encryption") {
		t.Errorf("psql without TLS: %v, printed\n%s\nwant a refusal", err, out)
	}
	if f := r.flows.find(t, host); f["front"] != "forward" || f["class"] != "ok" || f["source"] != "zone "+testnet.Zone {
		t.Errorf("flow line %v, want a forward flow of class ok, resolved by the private zone", f)
	}
}

// startPostgres runs a server on loopback until the test ends. It accepts only
// TLS connections, and has a certificate for host. startPostgres returns the
// server's address and the file of the authority's certificate.
func startPostgres(t *testing.T, bin, host string) (addr, ca string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pando-postgres-") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var as *syscall.Credential // PostgreSQL does not run as root
	if os.Getuid() == 0 {
		as = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir = dir
		cmd.Env = []string{"LC_ALL=C", "HOME=" + dir}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := run("initdb", "-D", data, "-U", "pando", "-A", "trust", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	cert, caPEM, err := testnet.Certificate(host)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	ca = filepath.Join(dir, "ca.pem")
	for name, text := range map[string][]byte{
		ca:                                 caPEM,
		filepath.Join(data, "server.crt"):  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		filepath.Join(data, "server.key"):  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		filepath.Join(data, "pg_hba.conf"): []byte("hostssl all all 127.0.0.1/32 trust\n"),
	} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if as != nil {
			if err := os.Chown(name, int(as.Uid), int(as.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	addr = testkit.FreePorts(t, 1)[0]
	_, port, _ := net.SplitHostPort(addr)
	var log bytes.Buffer
	cmd := run("postgres", "-D", data, "-h", "127.0.0.1", "-p", port, "-k", "", "-c", "ssl=on", "-c", "fsync=off")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGINT) // fast shutdown
		<-ended
		if t.Failed() {
			t.Logf("PostgreSQL's log:\n%s", log.String())
		}
	})
	testkit.Eventually(t, "PostgreSQL to listen", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr, ca
}
