package config

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"unicode"
)

// Secret is a string that logs and prints as "[redacted]".
type Secret string

const redacted = "[redacted]"

// Reveal returns the secret itself, without white space around it: files, Secrets and
// variables often end with a newline. Some editors put a mark before the text.
func (s Secret) Reveal() string { return strings.TrimFunc(string(s), isPadding) }

// isPadding reports whether r is white space, or a mark without a width.
func isPadding(r rune) bool {
	const byteOrderMark = 0xfeff
	const zeroWidthSpace = 0x200b
	return unicode.IsSpace(r) || r == byteOrderMark || r == zeroWidthSpace
}

// String returns "[redacted]", or "" for an empty secret.
func (s Secret) String() string {
	if s.Reveal() == "" {
		return ""
	}
	return redacted
}

// GoString, MarshalText and LogValue hide the secret from %#v, from encoders and
// from slog.
func (s Secret) GoString() string             { return s.String() }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(s.String()) }

// ReadAuthKey returns authKey, or the content of authKeyFile. Empty means that neither
// is set. A file that is empty or cannot be read is an error.
func (t Tailnet) ReadAuthKey() (Secret, error) {
	return readSecret(t.AuthKey, t.AuthKeyFile)
}

// ReadClientSecret does the same for clientSecret and clientSecretFile.
func (t Tailnet) ReadClientSecret() (Secret, error) {
	return readSecret(t.ClientSecret, t.ClientSecretFile)
}

func readSecret(value Secret, file string) (Secret, error) {
	if file == "" {
		return value, nil
	}
	b, err := readFile(file)
	if err != nil {
		return "", err
	}
	s := Secret(b)
	if s.Reveal() == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return s, nil
}

// secretFileError is a file of secrets that cannot be read.
type secretFileError struct{ error }

// OnlySecretFiles reports whether err, from Load or Validate, has no other cause
// than files of secrets that cannot be read. A device that has logged in does not
// need them. It reports false for nil.
func OnlySecretFiles(err error) bool {
	switch e := err.(type) { // the whole tree of errors: errors.As would stop at the first match
	case nil:
		return false
	case secretFileError:
		return true
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(err error) bool { return !OnlySecretFiles(err) })
	case interface{ Unwrap() error }:
		return OnlySecretFiles(e.Unwrap())
	}
	return false
}
