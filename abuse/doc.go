// Package abuse attacks a replica that runs under the memory limit of a
// container, and measures what another client notices. The replica is a process
// of its own in a memory cgroup of its own, and so is each attacker, without the
// cgroup; the tailnet and the innocent client are in the process of the test. make
// abuse runs it, as root.
//
// An attack is a function in attacks_test.go, ports_test.go, zones_test.go or
// silent_test.go; allAttacks lists them. The admin port has a test of its own, in
// admin_test.go, and so have hostile zones and a silent target.
package abuse
