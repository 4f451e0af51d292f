package strictyaml

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Origin is the place where a key was set.
type Origin struct {
	Where string // "pando.yaml:12:5", or another place in the form that a person knows
	// Line and Column are the place in the file; zero for other places.
	Line, Column int
}

// mistake is one mistake in a document.
type mistake struct {
	Origin
	path string // of the key, such as "drain.timeout"; empty for the document
	err  error
}

// Error returns a line such as
//
//	pando.yaml:12:5: drain.timeout: invalid duration "x": write it with a unit, such as 10s
func (m *mistake) Error() string {
	var parts []string
	for _, part := range []string{m.Where, m.path, m.err.Error()} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

func (m *mistake) Unwrap() error { return m.err }

// Report collects mistakes, and the origins of keys. The zero Report is empty.
type Report struct {
	origins  map[string]Origin // by path
	mistakes []*mistake
	invalid  []string // paths of the keys that have an invalid value
}

// SetOrigin records where the key at path was set. The elements that a list had
// before are no longer valid.
func (r *Report) SetOrigin(path string, o Origin) {
	if r.origins == nil {
		r.origins = map[string]Origin{}
	}
	for p := range r.origins {
		if strings.HasPrefix(p, path+"[") {
			delete(r.origins, p)
		}
	}
	r.origins[path] = o
}

// originOf returns the origin of the key at path, or that of the nearest key above
// it: a key that is missing has no origin of its own.
func (r *Report) originOf(path string) Origin {
	for path != "" {
		if o, ok := r.origins[path]; ok {
			return o
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return Origin{}
}

// Add records that the value at a path is invalid.
func (r *Report) Add(path, format string, args ...any) {
	r.AddError(path, fmt.Errorf(format, args...))
}

// AddError records that the value at a path is invalid.
func (r *Report) AddError(path string, err error) {
	r.invalid = append(r.invalid, path)
	r.AddAt(r.originOf(path), path, err)
}

// IsInvalid reports whether a mistake in the value at path, or at a path above it,
// is known.
func (r *Report) IsInvalid(path string) bool {
	return slices.ContainsFunc(r.invalid, func(above string) bool { return isBelow(path, above) })
}

// AddAt records a mistake at a place: one that is not the value at path, such as an
// unknown key.
func (r *Report) AddAt(o Origin, path string, err error) {
	r.mistakes = append(r.mistakes, &mistake{Origin: o, path: path, err: err})
}

// Err joins the mistakes: those in the file by line, then the others. It is nil if
// there are none.
func (r *Report) Err() error {
	list := slices.Clone(r.mistakes)
	slices.SortStableFunc(list, func(a, b *mistake) int {
		if a.Line == 0 || b.Line == 0 {
			return cmp.Compare(b.Line, a.Line) // 0 is last
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var errs []error
	for _, m := range list {
		errs = append(errs, m)
	}
	return errors.Join(errs...)
}

// isBelow reports whether path is above, or the path of a key or element in it.
func isBelow(path, above string) bool {
	rest, ok := strings.CutPrefix(path, above)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// Nearest returns the candidate that name is most likely meant to be, or "" if none
// is similar.
func Nearest(name string, candidates []string) string {
	best := ""
	least := max(1, min(3, len(name)/3)) + 1
	for _, c := range candidates {
		n := Distance(strings.ToLower(name), strings.ToLower(c))
		if n < least {
			best = c
			least = n
		}
	}
	return best
}

// Distance returns how many letters of a must be inserted, removed, replaced or
// swapped with the next one to make b.
func Distance(a, b string) int {
	rows := make([][]int, len(a)+1) // rows[i][j] is the distance of a[:i] and b[:j]
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replaced := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			best := min(replaced, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				best = min(best, rows[i-2][j-2]+1)
			}
			rows[i][j] = best
		}
	}
	return rows[len(a)][len(b)]
}
