// Package clients runs real client programs through a real replica, in a network
// namespace without a way out, and writes what they do into docs/clients.md. "make
// clients" installs the programs and runs it, as root on Debian. The programs whose
// language needs a script have it in tools/clients.
//
// Each program gets what each client of a fleet would set: the variables, or its own
// options. The names that it asks for exist behind the tailnet only, so a program that
// looks names up by itself fails.
package clients
