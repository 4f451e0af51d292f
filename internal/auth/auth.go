// Package auth verifies the users of a replica. It reads a file of
// user:password lines, compares passwords, and slows down guesses. It speaks no
// protocol: the fronts take the password from the client.
package auth

import (
	"bufio"
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/crypto/bcrypt"
)

// maxWrong is the number of wrong pairs that Users remembers.
const maxWrong = 4096

// maxCost is the highest cost of a bcrypt hash. One check takes about a second then.
const maxCost = 14

// Users is a set of users with their passwords: a keyed hash of a plain password,
// or a bcrypt hash. The users do not change, and its methods may be called
// concurrently.
type Users struct {
	key     [32]byte // random, so that digests are of no use elsewhere
	users   map[string]*user
	none    digest                       // what is compared for a user that does not exist
	slowest []byte                       // the bcrypt hash with the highest cost; nil if the file has no hash
	wrong   *lru.Cache[digest, struct{}] // pairs that were wrong
	compare func(hash, password []byte) error
}

// user is one line of the file.
type user struct {
	right atomic.Pointer[digest] // of the right pair; nil until a password with a bcrypt hash was right
	hash  []byte                 // bcrypt; nil for a plain password
}

// digest is the keyed hash of a user and a password.
type digest [sha256.Size]byte

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

// Read reads lines of the form user:password. The password may contain colons. It
// is a bcrypt hash if it begins with $2; bcrypt looks at the first 72 bytes of a
// password. Read skips empty lines and lines that begin with #. At least one user is
// required, and each user only once.
func Read(r io.Reader) (*Users, error) {
	u := &Users{users: map[string]*user{}, compare: bcrypt.CompareHashAndPassword}
	rand.Read(u.key[:]) // never fails
	rand.Read(u.none[:])
	u.wrong, _ = lru.New[digest, struct{}](maxWrong) // fails for a size below 1 only
	highest := 0
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimRight(sc.Text(), "\r")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, password, ok := strings.Cut(line, ":")
		if !ok || name == "" || password == "" {
			return nil, fmt.Errorf("line %d: write user:password", n)
		}
		if u.users[name] != nil {
			return nil, fmt.Errorf("line %d: user %q is already in the file", n, name)
		}
		cost, err := hashCost(password)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		u.add(name, password, cost > 0)
		if cost > highest {
			highest = cost
			u.slowest = []byte(password)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	if len(u.users) == 0 {
		return nil, errors.New("the file contains no user: write lines of user:password")
	}
	return u, nil
}

// add adds a user with a plain password, or with a bcrypt hash.
func (u *Users) add(name, password string, isHash bool) {
	one := &user{}
	if isHash {
		one.hash = []byte(password)
	} else {
		d := u.digest(name, password)
		one.right.Store(&d)
	}
	u.users[name] = one
}

var bcryptHash = regexp.MustCompile(`^\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)

// otherHashes are the beginnings of hashes of other kinds. Read refuses them, because
// as plain passwords they would be right for whoever has seen the file.
var otherHashes = []string{"$1$", "$5$", "$6$", "$7$", "$y$", "$gy$", "$apr1$", "$argon2", "$pbkdf2", "$scrypt", "{SHA}", "{SSHA}"}

// hashCost returns the cost of a bcrypt hash, and 0 for a plain password. The error
// does not show the password.
func hashCost(password string) (int, error) {
	if slices.ContainsFunc(otherHashes, func(begin string) bool { return strings.HasPrefix(password, begin) }) {
		return 0, errors.New("the hash is not of a known kind: write the line that htpasswd -nB prints")
	}
	if !strings.HasPrefix(password, "$2") {
		return 0, nil
	}
	m := bcryptHash.FindStringSubmatch(password)
	if m == nil {
		return 0, errors.New("invalid bcrypt hash: write the line that htpasswd -nB prints")
	}
	cost, _ := strconv.Atoi(m[1]) // two digits
	if cost < bcrypt.MinCost || cost > maxCost {
		return 0, fmt.Errorf("invalid bcrypt cost %d: write a hash with a cost from %d to %d", cost, bcrypt.MinCost, maxCost)
	}
	return cost, nil
}

// Verify reports whether a user exists and has this password. It takes the same time
// for a user that does not exist as for a wrong password, and the same time for every
// wrong password, however much of it is right. If the file has bcrypt hashes, it is
// fast for pairs that it was asked before.
func (u *Users) Verify(name, password string) bool {
	d := u.digest(name, password)
	right, known := u.recall(name, d)
	if known {
		return right
	}
	return u.check(name, password, d)
}

// recall reports whether a pair is known to be right, or known to be wrong. It is
// fast. A pair that is not known needs check.
func (u *Users) recall(name string, d digest) (right, known bool) {
	want := &u.none
	if one := u.users[name]; one != nil {
		want = cmp.Or(one.right.Load(), want)
	}
	if hmac.Equal(want[:], d[:]) {
		return true, true
	}
	_, known = u.wrong.Get(d)
	return false, known
}

// check decides about a pair that is not known, and remembers the outcome. If one line
// of the file has a bcrypt hash, it computes one, whoever the user is.
func (u *Users) check(name, password string, d digest) bool {
	hash := u.slowest
	one := u.users[name]
	hashed := one != nil && one.hash != nil
	if hashed {
		hash = one.hash
	}
	same := hash != nil && u.compare(hash, []byte(password)) == nil
	if same && hashed {
		one.right.Store(&d)
		return true
	}
	u.wrong.Add(d, struct{}{})
	return false
}

// digest returns the keyed hash of a pair.
func (u *Users) digest(name, password string) (d digest) {
	m := hmac.New(sha256.New, u.key[:])
	var length [8]byte // a name can contain every byte
	binary.BigEndian.PutUint64(length[:], uint64(len(name)))
	m.Write(length[:])
	io.WriteString(m, name)
	io.WriteString(m, password)
	m.Sum(d[:0])
	return d
}
