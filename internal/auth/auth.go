// Package auth verifies the users of a replica. It reads a file of
// user:password lines and compares passwords. It speaks no protocol: the fronts
// take the password from the client.
package auth

import (
	"bufio"
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Users is a set of users with their passwords, as keyed hashes. It does not
// change, so its methods may be called concurrently.
type Users struct {
	key  [32]byte
	hash map[string][]byte
	none []byte // what is compared for a user that does not exist
}

// Load reads the file at path. Read describes its form. The error names the file
// and the line.
func Load(path string) (*Users, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, cmp.Or(errors.Unwrap(err), err))
	}
	defer f.Close()
	u, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return u, nil
}

// Read reads lines of the form user:password. The password may contain colons.
// Read skips empty lines and lines that begin with #. At least one user is
// required, and each user only once.
func Read(r io.Reader) (*Users, error) {
	u := &Users{hash: map[string][]byte{}}
	rand.Read(u.key[:]) // never fails
	u.none = u.mac("")
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimRight(sc.Text(), "\r")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, password, ok := strings.Cut(line, ":")
		if !ok || user == "" || password == "" {
			return nil, fmt.Errorf("line %d: write user:password", n)
		}
		if u.hash[user] != nil {
			return nil, fmt.Errorf("line %d: user %q is already in the file", n, user)
		}
		u.hash[user] = u.mac(password)
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	if len(u.hash) == 0 {
		return nil, errors.New("the file contains no user: write lines of user:password")
	}
	return u, nil
}

// Verify reports whether user exists and has this password. It takes the same
// time for a user that does not exist as for a wrong password, and the same time
// for every wrong password, however much of it is right.
func (u *Users) Verify(user, password string) bool {
	want, ok := u.hash[user]
	if !ok {
		want = u.none
	}
	same := hmac.Equal(want, u.mac(password))
	return same && ok
}

// mac returns the keyed hash of s.
func (u *Users) mac(s string) []byte {
	m := hmac.New(sha256.New, u.key[:])
	m.Write([]byte(s))
	return m.Sum(nil)
}
