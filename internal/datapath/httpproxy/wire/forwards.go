package wire

import (
	"errors"
	"net/http"
	"strconv"
)

// CountMaxForwards counts the Max-Forwards of a TRACE or OPTIONS down (RFC 9110 section
// 7.6.2). last reports that the request may go no further. The error says that the field
// needs a number.
func CountMaxForwards(req *http.Request) (last bool, err error) {
	v := req.Header.Get("Max-Forwards")
	if v == "" || req.Method != http.MethodTrace && req.Method != http.MethodOptions {
		return false, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return false, errors.New("malformed Max-Forwards")
	}
	if n == 0 {
		return true, nil
	}
	for i := range req.Header["Max-Forwards"] {
		req.Header["Max-Forwards"][i] = strconv.Itoa(n - 1)
	}
	return false, nil
}
