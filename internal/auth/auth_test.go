package auth

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadErrors(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"empty", "", "the file contains no user"},
		{"comments_alone", "# none yet\n\n", "the file contains no user"},
		{"no_colon", "ann:a\n\n# people\nbob\n", "line 4: write user:password"},
		{"no_user", ":secret\n", "line 1: write user:password"},
		{"no_password", "ann:a\nbob:\n", "line 2: write user:password"},
		{"no_password_before_crlf", "ann:\r\n", "line 1: write user:password"},
		{"twice", "ann:a\nbob:b\nann:c\n", `line 3: user "ann" is already in the file`},
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
	u, err := Read(strings.NewReader("# users\r\n\r\nann:a\r\nbob:with:colons \n #eve:e\ncarl:ä"))
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
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := u.Verify(c.user, c.password); got != c.want {
				t.Errorf("Verify(%q, %q) = %v, want %v", c.user, c.password, got, c.want)
			}
		})
	}
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
