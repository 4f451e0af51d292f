package origin

// Reuse says which requests a connection serves after the first one.
type Reuse string

const (
	ReuseClient Reuse = "client" // requests of the same client
	ReuseShared Reuse = "shared" // requests of any client, until it has carried a request with a body
	ReuseNone   Reuse = "none"   // no other request
)

// Outcome is what becomes of a connection after a request, as metrics spell it.
// All but Kept and Broken are reasons for which a connection that works is
// closed.
type Outcome string

const (
	// Kept: it waits for another request.
	Kept Outcome = "kept"
	// Broken: the request or its response did not end well, or the client left.
	Broken Outcome = "broken"
	// OriginCloses: the origin, or the version of HTTP that it speaks, ends the
	// connection.
	OriginCloses Outcome = "origin_closes"
	// OddBody: the request had a body, and its method gives a body no meaning (RFC
	// 9110 section 9.3). Some origins ignore such a body, and read it as the next
	// request.
	OddBody Outcome = "odd_body"
	// Expect: the request had an Expect field. Some origins and clients do not agree
	// whether a body follows.
	Expect Outcome = "expect"
	// Early: the response began before the request had been sent whole.
	Early Outcome = "early_response"
	// Ambiguous: the response had Transfer-Encoding together with Content-Length, or
	// in HTTP/1.0.
	Ambiguous Outcome = "ambiguous_length"
	// Unasked: bytes follow the response that no request has asked for.
	Unasked Outcome = "unasked_bytes"
	// ConnectionAuth: NTLM or Negotiate has authenticated the connection.
	ConnectionAuth Outcome = "connection_auth"
	// Full: the pool has no place for it.
	Full Outcome = "pool_full"
	// NoReuse: the configuration keeps none.
	NoReuse Outcome = "reuse_none"
)

// Outcomes lists every outcome.
func Outcomes() []Outcome {
	return []Outcome{Kept, Broken, OriginCloses, OddBody, Expect, Early, Ambiguous, Unasked, ConnectionAuth, Full, NoReuse}
}
