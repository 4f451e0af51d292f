package cache

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// addr returns one of many client addresses.
func addr(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}) }

func TestGetAddRemove(t *testing.T) {
	c := New[int](1 << 20)
	c.Add(addr(1), "a", 1, 10)
	c.Add(addr(2), "a", 2, 10) // of another client
	c.Add(addr(2), "b", 3, 10)
	if v, ok := c.Get("a"); !ok || v != 2 {
		t.Errorf("Get(a) = %d, %v, want 2", v, ok)
	}
	c.Remove("a")
	c.Remove("a")
	if v, ok := c.Get("a"); ok {
		t.Errorf("Get(a) = %d after Remove, want none", v)
	}
	if names, bytes := c.Use(); names != 1 || bytes != clientCost+nameCost+11 {
		t.Errorf("Use() = %d names and %d bytes, want 1 and %d", names, bytes, clientCost+nameCost+11)
	}
	c.Purge()
	if names, bytes := c.Use(); names != 0 || bytes != 0 || len(c.order) != 0 {
		t.Errorf("Use() = %d names and %d bytes after Purge, want none", names, bytes)
	}
	c.Add(addr(1), "huge", 1, 2<<20)
	if _, ok := c.Get("huge"); ok {
		t.Error("a value above the bound is kept, want none")
	}
}

// TestSplit checks that an outcome takes the place of an earlier one of the other kind.
func TestSplit(t *testing.T) {
	s := NewSplit[int](1 << 20)
	for i, good := range []bool{true, false, true} {
		s.Add(addr(1), "a", i, 10, good)
		goodBytes, failedBytes := s.Use()
		if v, ok := s.Get("a"); !ok || v != i || (goodBytes > 0) != good || (failedBytes > 0) == good {
			t.Errorf("after outcome %d: Get = %d, %v, with %d bytes of answers and %d of others", i, v, ok, goodBytes, failedBytes)
		}
	}
	s.Purge()
	if _, ok := s.Get("a"); ok {
		t.Error("an answer is kept after Purge, want none")
	}
}

// TestLeastRecentlyUsedGoes checks the order in which the names of one client go.
func TestLeastRecentlyUsedGoes(t *testing.T) {
	c := New[int](clientCost + 3*(nameCost+100+1))
	for _, name := range []string{"a", "b", "c"} {
		c.Add(addr(1), name, 0, 100)
	}
	c.Get("a")
	c.Add(addr(1), "d", 0, 100)
	for name, want := range map[string]bool{"a": true, "b": false, "c": true, "d": true} {
		if _, ok := c.Get(name); ok != want {
			t.Errorf("%s is kept: %v, want %v", name, ok, want)
		}
	}
}

// TestOthersKeepTheirs checks that a client which adds names without end loses its
// own, and takes none from clients that hold less.
func TestOthersKeepTheirs(t *testing.T) {
	c := New[int](1 << 20)
	for client := range 20 {
		for i := range 20 {
			c.Add(addr(client), strconv.Itoa(client)+"-"+strconv.Itoa(i), i, 100)
		}
	}
	for i := range 50_000 {
		c.Add(addr(100), "random-"+strconv.Itoa(i), i, 1000)
	}
	for client := range 20 {
		for i := range 20 {
			if _, ok := c.Get(strconv.Itoa(client) + "-" + strconv.Itoa(i)); !ok {
				t.Fatalf("name %d of client %d was evicted, want all of them kept", i, client)
			}
		}
	}
	if _, bytes := c.Use(); bytes > 1<<20 || bytes < 1<<20-2000 {
		t.Errorf("%d bytes are held, want the cache full", bytes)
	}
}

// TestBytesAreMeant compares what the cache counts with what the process uses.
func TestBytesAreMeant(t *testing.T) {
	heapNow := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const most = 8 << 20
	before := heapNow()
	c := New[[]byte](most)
	for i := range 60_000 {
		c.Add(addr(i%5000), strings.Repeat("n", 20)+strconv.Itoa(i), make([]byte, 64), 64+24)
	}
	used := heapNow() - before
	names, _ := c.Use()
	t.Logf("%d names take %d KiB of at most %d KiB", names, used>>10, most>>10)
	if used > most {
		t.Errorf("the cache takes %d bytes, want at most %d", used, most)
	}
	runtime.KeepAlive(c)
}

// FuzzCache compares the cache with a model: it never holds more than its bound,
// it counts each byte, and nothing is left after all names are removed.
func FuzzCache(f *testing.F) {
	f.Add([]byte{0, 1, 2, 0, 3, 0, 0, 9, 255, 255, 1, 1, 0, 0, 2, 1, 0, 0})
	f.Add([]byte{0, 1, 0, 200, 0, 2, 0, 200, 0, 3, 0, 200, 0, 4, 1, 0, 0, 21, 255, 0, 3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		const most = 16 << 10
		c := New[int](most)
		value := map[string]int{} // the last one that was added
		for n := 0; len(ops) >= 4; n++ {
			op := ops[0] % 8
			name := strconv.Itoa(int(ops[1] % 64))
			client := addr(int(ops[1]) / 16)
			bytes := int(binary.BigEndian.Uint16(ops[2:])) % (most / 2)
			ops = ops[4:]
			switch {
			case op < 6:
				c.Add(client, name, n, bytes)
				value[name] = n
				c.Get(name)
			case op == 6:
				c.Remove(name)
				delete(value, name)
			case bytes%16 == 0:
				c.Purge()
				clear(value)
			}
			c.check(t, value, most)
		}
		for name := range value {
			c.Remove(name)
		}
		if names, bytes := c.Use(); names != 0 || bytes != 0 || len(c.clients) != 0 || len(c.order) != 0 {
			t.Fatalf("%d names, %d bytes, %d clients are left, want none", names, bytes, len(c.clients))
		}
	})
}

// check checks the counts of c, and that it returns nothing that is not in want.
func (c *Cache[V]) check(t *testing.T, want map[string]int, most int) {
	t.Helper()
	held := 0
	names := 0
	for i, owner := range c.order {
		sum := clientCost
		for _, name := range owner.kept.Keys() {
			w, _ := owner.kept.Peek(name)
			sum += w.bytes
			names++
			if n, ok := want[name]; !ok || any(w.value) != any(n) || c.names[name] != owner {
				t.Fatalf("%s = %v, want %d, %v", name, w.value, n, ok)
			}
		}
		if owner.held != sum || owner.index != i || c.clients[owner.addr] != owner || owner.held > c.order[0].held {
			t.Fatalf("client %v holds %d at %d, want %d at %d", owner.addr, owner.held, owner.index, sum, i)
		}
		held += sum
	}
	if got, bytes := c.Use(); got != names || bytes != held || bytes > most || len(c.clients) != len(c.order) {
		t.Fatalf("Use() = %d names and %d bytes, want %d and %d, at most %d", got, bytes, names, held, most)
	}
}
