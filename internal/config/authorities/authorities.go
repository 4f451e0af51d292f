// Package authorities reads files with certificates of authorities.
package authorities

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// Load returns the authorities that the system trusts, together with those in the file at
// path, which is in PEM and may have other text between the certificates. It returns nil,
// which stands for the system's, if path is empty. The error names the file.
func Load(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, cmp.Or(errors.Unwrap(err), err))
	}
	pool, err := x509.SystemCertPool()
	if err != nil { // this system has none
		pool = x509.NewCertPool()
	}
	n := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: contains a %s; keep only certificates of authorities in it", path, block.Type)
		}
		n++
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d is not valid: %w", path, n, err)
		}
		pool.AddCert(c)
	}
	if n == 0 {
		return nil, fmt.Errorf("%s: contains no certificate: write them in PEM, from -----BEGIN CERTIFICATE----- on", path)
	}
	return pool, nil
}
