// Package auth knows the users that may use the gateway. It reads a file of
// user:password lines and compares; it speaks no protocol.
package auth

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
)

// Users is a set of users with their passwords. It keeps only keyed hashes.
type Users struct {
	key  [32]byte
	hash map[string][]byte
	none []byte // compared with for users that don't exist
}

// Load reads the file at path; Read says what it must look like.
func Load(path string) (*Users, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("users file: %w", err)
	}
	defer f.Close()
	u, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("users file %s: %w", path, err)
	}
	return u, nil
}

// Read reads lines of the form user:password. The password may hold colons.
// Empty lines and lines that begin with # are left out. At least one user is
// required, and none twice.
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
			return nil, fmt.Errorf("line %d: want user:password", n)
		}
		if u.hash[user] != nil {
			return nil, fmt.Errorf("line %d: user %q is there already", n, user)
		}
		u.hash[user] = u.mac(password)
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	if len(u.hash) == 0 {
		return nil, fmt.Errorf("no user in it: want lines of user:password")
	}
	return u, nil
}

// Verify reports whether user exists and has this password. It takes as long
// for a wrong user as for a wrong password, and as long for one that begins
// right as for one that doesn't.
func (u *Users) Verify(user, password string) bool {
	want, ok := u.hash[user]
	if !ok {
		want = u.none
	}
	same := hmac.Equal(want, u.mac(password))
	return same && ok
}

func (u *Users) mac(s string) []byte {
	m := hmac.New(sha256.New, u.key[:])
	m.Write([]byte(s))
	return m.Sum(nil)
}
