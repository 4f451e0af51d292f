// Package doc holds the descriptions of the configuration's keys. doc_gen.go is
// generated from the comments of the schema: after a change of these, run
// "make docs".
package doc

// Of returns the description of a key or of a section by its path, such as
// "policy.rules[].from" or "listen", in plain text; "" if there is no such path.
func Of(path string) string { return descriptions[path] }
