package auth

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// hashed is a bcrypt hash of the password U*U, from the tests of crypt_blowfish.
const hashed = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"

func TestReadErrors(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"empty", "", "the file contains no user"},
		{"comments_alone", "# none yet\n\n", "the file contains no user"},
		{"no_colon", "ann:a\n\n# people\nbob\n", "line 4: write user:password"},
		{"no_user", ":secret\n", "line 1: write user:password"},
		{"no_password", "ann:a\nbob:\n", "line 2: write user:password"},
		{"no_password_before_crlf", "ann:\r\n", "line 1: write user:password"},
		{"twice", "ann:a\nbob:b\nann:c\n", `line 3: user "ann" is already in the file`},
		{"hash_too_short", "ann:a\nbob:$2y$05$secret\n", "line 2: invalid bcrypt hash: write the line that htpasswd -nB prints"},
		{"hash_with_a_space", "ann:" + hashed + " \n", "line 1: invalid bcrypt hash"},
		{"hash_version", "ann:" + strings.Replace(hashed, "$2a$", "$2x$", 1) + "\n", "line 1: invalid bcrypt hash"},
		{"hash_version_too_new", "ann:" + strings.Replace(hashed, "$2a$", "$2c$", 1) + "\n", "line 1: invalid bcrypt hash"},
		{"cost_too_high", "ann:" + strings.Replace(hashed, "$05$", "$17$", 1) + "\n", "line 1: invalid bcrypt cost 17: write a hash with a cost from 4 to 14"},
		{"cost_too_low", "ann:" + strings.Replace(hashed, "$05$", "$03$", 1) + "\n", "line 1: invalid bcrypt cost 3"},
		{"md5_of_apache", "ann:$apr1$secret$FIylSsoxhSvbNh5cjXzLP1\n", "line 1: the hash is not of a known kind: write the line that htpasswd -nB prints"},
		{"sha512", "# x\nann:$6$secret$abc\n", "line 2: the hash is not of a known kind"},
		{"sha1", "ann:{SHA}secret=\n", "line 1: the hash is not of a known kind"},
		{"line_too_long", "ann:" + strings.Repeat("a", bufio.MaxScanTokenSize), bufio.ErrTooLong.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := Read(strings.NewReader(c.file))
			if err == nil || !strings.Contains(err.Error(), c.want) || u != nil {
				t.Fatalf("Read = %v, %v; want an error with %q", u, err, c.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error = %v, want one without the password", err)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	b := strings.Replace(hashed, "$2a$", "$2b$", 1)
	y := strings.Replace(hashed, "$2a$", "$2y$", 1)
	u, err := Read(strings.NewReader("# users\r\n\r\nann:a\r\nbob:with:colons \nhana:" + hashed + "\r\nhanb:" + b + "\nhany:" + y + "\ndollar:$a$b\n #eve:e\ncarl:ä"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, user, password string
		want                 bool
	}{
		{"right", "ann", "a", true},
		{"password_with_colons_and_space", "bob", "with:colons ", true},
		{"last_line_without_newline", "carl", "ä", true},
		{"only_a_first_hash_comments", " #eve", "e", true},
		{"wrong_password", "ann", "b", false},
		{"prefix_of_password", "bob", "with", false},
		{"longer_password", "ann", "a ", false},
		{"empty_password", "ann", "", false},
		{"password_of_another", "ann", "ä", false},
		{"wrong_case", "Ann", "a", false},
		{"no_such_user", "dora", "a", false},
		{"no_such_user_empty_password", "dora", "", false},
		{"nothing", "", "", false},
		{"dollars_alone_make_no_hash", "dollar", "$a$b", true},
		{"bcrypt_2a", "hana", "U*U", true},
		{"bcrypt_2b", "hanb", "U*U", true},
		{"bcrypt_2y", "hany", "U*U", true},
		{"bcrypt_wrong", "hana", "U*U*", false},
		{"bcrypt_empty", "hana", "", false},
		{"the_hash_is_not_the_password", "hana", hashed, false},
		{"plain_user_with_the_password_of_a_hash", "ann", "U*U", false},
		{"no_such_user_with_the_password_of_a_hash", "dora", "U*U", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // the second time it remembers
				if got := u.Verify(c.user, c.password); got != c.want {
					t.Errorf("Verify(%q, %q) = %v, want %v", c.user, c.password, got, c.want)
				}
			}
		})
	}
}

// TestComputes checks that every pair costs one computation of bcrypt the first
// time, and none later, whether the user exists or not.
func TestComputes(t *testing.T) {
	u, n := counted(t, "ann:a\nhana:"+hashed+"\n")
	for _, c := range []struct {
		user, password string
		want           int
	}{
		{"hana", "U*U", 1},
		{"hana", "wrong", 1},
		{"ann", "wrong", 1},
		{"nobody", "wrong", 1},
		{"ann", "a", 0}, // right at once
	} {
		for _, want := range []int{c.want, 0} {
			n.Store(0)
			u.Verify(c.user, c.password)
			if got := int(n.Load()); got != want {
				t.Errorf("Verify(%q, %q) computed %d hashes, want %d", c.user, c.password, got, want)
			}
		}
	}
	plain, n := counted(t, "ann:a\n")
	if plain.Verify("ann", "b") || n.Load() != 0 {
		t.Errorf("Verify without a hash in the file computed %d hashes, want 0 and false", n.Load())
	}
}

// TestRemembersFewPairs checks that what is remembered of wrong pairs has a bound.
func TestRemembersFewPairs(t *testing.T) {
	u, _ := counted(t, "ann:a\n")
	for i := range maxWrong + 10 {
		u.Verify("ann", fmt.Sprint(i))
	}
	if n := u.wrong.Len(); n != maxWrong {
		t.Errorf("remembered pairs = %d, want %d", n, maxWrong)
	}
}

// TestDigestsDiffer checks that a digest depends on the process, and on where the
// name ends.
func TestDigestsDiffer(t *testing.T) {
	u, _ := counted(t, "ann:a\n")
	other, _ := counted(t, "ann:a\n")
	if u.digest("ann", "a") == other.digest("ann", "a") {
		t.Error("two sets of users have the same digest, want different keys")
	}
	if u.digest("a:b", "c") == u.digest("a", "b:c") || u.digest("ab", "c") == u.digest("a", "bc") {
		t.Error("different pairs have the same digest")
	}
}

// counted returns the users of a file, and counts the hashes that they compute.
func counted(t *testing.T, file string) (*Users, *atomic.Int64) {
	t.Helper()
	u, err := Read(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	n := &atomic.Int64{}
	compare := u.compare
	u.compare = func(hash, password []byte) error {
		n.Add(1)
		return compare(hash, password)
	}
	return u, n
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Load = %v, want %v", err, fs.ErrNotExist)
	}
	if err := os.WriteFile(path, []byte("ann"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path+": line 1") {
		t.Errorf("Load = %v, want the path and the line", err)
	}
	if err := os.WriteFile(path, []byte("ann:a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if u, err := Load(path); err != nil || !u.Verify("ann", "a") {
		t.Errorf("Load = %v, %v; want users with ann", u, err)
	}
}
