package authorities

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLoad checks what is a file of authorities. The file of the configuration's tests has
// text before its certificate.
func TestLoad(t *testing.T) {
	good, err := os.ReadFile("../testdata/authority.pem")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		file []byte
		want string // in the error; empty means none
	}{
		{"one", good, ""},
		{"two", append(bytes.Clone(good), good...), ""},
		{"windows", bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")), ""},
		{"empty", nil, "contains no certificate"},
		{"not_pem", []byte("hello\n"), "contains no certificate"},
		{"cut", good[:len(good)-20], "contains no certificate"},
		{"private_key", []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "contains a PRIVATE KEY"},
		{"damaged", append(bytes.Clone(good), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...), "certificate 2 is not valid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ca.pem")
			if err := os.WriteFile(path, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			pool, err := Load(path)
			switch {
			case c.want == "" && (err != nil || pool == nil):
				t.Errorf("Load = %v, %v; want a pool", pool, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path)):
				t.Errorf("Load = %v, want an error with the file and %q", err, c.want)
			}
		})
	}
	if pool, err := Load(""); pool != nil || err != nil {
		t.Errorf("Load without a file = %v, %v; want nil, which is the system's", pool, err)
	}
	if _, err := Load("/nonexistent/ca.pem"); err == nil || err.Error() != "cannot read /nonexistent/ca.pem: no such file or directory" {
		t.Errorf("Load of no file = %v", err)
	}
}
