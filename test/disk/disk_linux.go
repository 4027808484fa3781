package disk

import (
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Op is what a program asks of the disk.
type Op struct {
	Number int    // of those that change something or make it durable, from 1
	Kind   string // create, mkdir, write, truncate, attr, rename, unlink, rmdir, sync
	Name   string // of the file or directory, without those above it

	disk *Disk
}

// Cut is Disk.Cut for the hook that was given the operation: the power is cut
// before it.
func (o Op) Cut(loss Loss, luck uint64) *Disk { return o.disk.cut(loss, luck) }

// Disk is a file system in memory. Its methods may be called by many
// goroutines.
type Disk struct {
	mu   sync.Mutex
	root *node
	ops  int
	inos uint64
	hook func(Op) syscall.Errno
}

// New returns an empty disk.
func New() *Disk {
	d := &Disk{}
	d.root = d.node(syscall.S_IFDIR | 0o755)
	return d
}

// Hook has f called before each operation; what it returns, if not 0, is the
// operation's error, and nothing is done. f must not call the disk's methods:
// nothing happens on the disk until it returns.
func (d *Disk) Hook(f func(Op) syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = f
}

// Ops returns how many operations there were.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// begin counts an operation and asks the hook. The lock is held.
func (d *Disk) begin(kind, name string) syscall.Errno {
	d.ops++
	if d.hook == nil {
		return 0
	}
	return d.hook(Op{d.ops, kind, name, d})
}

// Mount mounts the disk until the test ends or the function that it returns
// is called. A machine without FUSE fails the test.
func (d *Disk) Mount(tb testing.TB, at string) (unmount func()) {
	tb.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		tb.Fatalf("this test needs FUSE: %v; load it with: modprobe fuse", err)
	}
	long := time.Hour // nothing changes but through this mount
	server, err := fs.Mount(at, d.root, &fs.Options{
		EntryTimeout: &long, AttrTimeout: &long, NegativeTimeout: &long,
		MountOptions: fuse.MountOptions{
			// As root without the help of fusermount3.
			DirectMount: true, FsName: "disk", Name: "disk", DisableXAttrs: true, MaxWrite: 1 << 20,
		},
	})
	if err != nil {
		tb.Fatalf("mount a disk by FUSE at %s: %v; run this test as root, or install fusermount3: apt-get install fuse3", at, err)
	}
	var once sync.Once
	unmount = func() {
		once.Do(func() {
			// A process that was killed may hold a file for a moment more.
			for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
				err := server.Unmount()
				if err == nil {
					return
				}
				if time.Now().After(end) {
					_ = syscall.Unmount(at, syscall.MNT_DETACH)
					tb.Errorf("unmount %s: %v", at, err)
					return
				}
			}
		})
	}
	tb.Cleanup(unmount)
	return unmount
}

// Loss says what a power cut does to what isn't durable.
type Loss int

// The ways of losing it: all of it, or some of it in no order, in pieces of a
// page.
const (
	All Loss = iota
	Some
)

// page is the piece of a file that is written whole.
const page = 4096

// Cut returns the disk as it is after the power was cut at this moment. luck
// chooses what stays with Some.
func (d *Disk) Cut(loss Loss, luck uint64) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cut(loss, luck)
}

// cut is Cut with the lock held.
func (d *Disk) cut(loss Loss, luck uint64) *Disk {
	out := &Disk{}
	c := cut{to: out, loss: loss, luck: rand.New(rand.NewPCG(luck, 1)), made: map[*node]*node{}}
	out.root = c.node(d.root)
	return out
}

type cut struct {
	to   *Disk
	loss Loss
	luck *rand.Rand
	made map[*node]*node
}

func (c *cut) stays() bool { return c.loss == Some && c.luck.IntN(2) == 0 }

// node returns what is left of a node. A file whose name is durable twice, as
// after a rename whose one directory was synced, is two names of one file.
func (c *cut) node(n *node) *node {
	if out, ok := c.made[n]; ok {
		return out
	}
	out := c.to.node(n.mode)
	c.made[n] = out
	out.mtime = n.mtime
	if !n.dir() {
		out.data = c.octets(n)
		out.durable, out.synced = out.data, true
		return out
	}
	for name, child := range n.names {
		if n.durableNames[name] != child {
			if c.stays() {
				out.names[name] = c.node(child)
			} else if before := n.durableNames[name]; before != nil {
				out.names[name] = c.node(before)
			}
			continue
		}
		out.names[name] = c.node(child)
	}
	for name, child := range n.durableNames {
		if _, there := n.names[name]; !there && !c.stays() { // the name was taken away
			out.names[name] = c.node(child)
		}
	}
	out.makeDurable()
	return out
}

// octets are what is left of a file.
func (c *cut) octets(n *node) []byte {
	if n.synced {
		return n.durable // never changed in place
	}
	if c.loss == All {
		return n.durable
	}
	size := len(n.durable)
	if c.stays() {
		size = len(n.data)
	}
	out := make([]byte, size)
	copy(out, n.durable)
	for at := 0; at < min(size, len(n.data)); at += page {
		if c.stays() {
			copy(out[at:min(at+page, size)], n.data[at:])
		}
	}
	return out
}
