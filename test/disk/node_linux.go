package disk

import (
	"context"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file or a directory: as it is, and as it is durable.
type node struct {
	fs.Inode
	disk  *Disk
	ino   uint64
	mode  uint32
	mtime time.Time

	data    []byte
	durable []byte // replaced, and never changed in place
	synced  bool   // data is what is durable, and they may be the same octets

	names, durableNames map[string]*node // of a directory
}

var (
	_ fs.NodeLookuper  = (*node)(nil)
	_ fs.NodeCreater   = (*node)(nil)
	_ fs.NodeMkdirer   = (*node)(nil)
	_ fs.NodeUnlinker  = (*node)(nil)
	_ fs.NodeRmdirer   = (*node)(nil)
	_ fs.NodeRenamer   = (*node)(nil)
	_ fs.NodeReaddirer = (*node)(nil)
	_ fs.NodeGetattrer = (*node)(nil)
	_ fs.NodeSetattrer = (*node)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeReader    = (*node)(nil)
	_ fs.NodeWriter    = (*node)(nil)
	_ fs.NodeFsyncer   = (*node)(nil)
	_ fs.NodeStatfser  = (*node)(nil)
)

// node makes a node of the disk. The lock is held, or nobody else knows the
// disk yet.
func (d *Disk) node(mode uint32) *node {
	d.inos++
	n := &node{disk: d, ino: d.inos, mode: mode, mtime: time.Now()}
	if n.dir() {
		n.names, n.durableNames = map[string]*node{}, map[string]*node{}
	}
	return n
}

func (n *node) dir() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

func (n *node) makeDurable() {
	if n.dir() {
		n.durableNames = maps.Clone(n.names)
		return
	}
	if !n.synced {
		n.durable = slices.Clone(n.data)
		n.synced = true
	}
}

// dirty is called before data changes.
func (n *node) dirty() {
	if n.synced {
		n.data = slices.Clone(n.data) // it may be the durable octets themselves
		n.synced = false
	}
	n.mtime = time.Now()
}

func (n *node) resize(size int) {
	if size <= len(n.data) {
		n.data = n.data[:size]
		return
	}
	n.data = append(n.data, make([]byte, size-len(n.data))...)
}

func (n *node) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink = n.ino, n.mode, 1
	out.Size = uint64(len(n.data))
	out.Blocks = (out.Size + 511) / 512
	out.Blksize = page
	out.SetTimes(&n.mtime, &n.mtime, &n.mtime)
}

func (n *node) child(ctx context.Context, c *node, out *fuse.EntryOut) *fs.Inode {
	c.attr(&out.Attr)
	return n.NewInode(ctx, c, fs.StableAttr{Mode: c.mode & syscall.S_IFMT, Ino: c.ino})
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	c, ok := n.names[name]
	if !ok {
		return nil, syscall.ENOENT
	}
	return n.child(ctx, c, out), 0
}

func (n *node) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if errno := n.disk.begin("create", name); errno != 0 {
		return nil, nil, 0, errno
	}
	c := n.disk.node(syscall.S_IFREG | mode&0o777)
	n.names[name] = c
	return n.child(ctx, c, out), nil, fuse.FOPEN_KEEP_CACHE, 0
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if errno := n.disk.begin("mkdir", name); errno != 0 {
		return nil, errno
	}
	c := n.disk.node(syscall.S_IFDIR | mode&0o777)
	n.names[name] = c
	return n.child(ctx, c, out), 0
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	return n.remove("unlink", name)
}

func (n *node) Rmdir(_ context.Context, name string) syscall.Errno { return n.remove("rmdir", name) }

func (n *node) remove(kind, name string) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	c, ok := n.names[name]
	if !ok {
		return syscall.ENOENT
	}
	if len(c.names) > 0 {
		return syscall.ENOTEMPTY
	}
	if errno := n.disk.begin(kind, name); errno != 0 {
		return errno
	}
	delete(n.names, name)
	return 0
}

func (n *node) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if flags != 0 {
		return syscall.EINVAL
	}
	parent, ok := to.(*node)
	c, there := n.names[name]
	switch {
	case !ok:
		return syscall.EXDEV
	case !there:
		return syscall.ENOENT
	}
	if old := parent.names[newName]; old != nil && old.dir() && len(old.names) > 0 {
		return syscall.ENOTEMPTY
	}
	if errno := n.disk.begin("rename", newName); errno != 0 {
		return errno
	}
	delete(n.names, name)
	parent.names[newName] = c
	return 0
}

func (n *node) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	var out []fuse.DirEntry
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		c := n.names[name]
		out = append(out, fuse.DirEntry{Name: name, Mode: c.mode & syscall.S_IFMT, Ino: c.ino})
	}
	return fs.NewListDirStream(out), 0
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.attr(&out.Attr)
	return 0
}

func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		if errno := n.disk.begin("truncate", n.name()); errno != 0 {
			return errno
		}
		n.dirty()
		n.resize(int(size))
	}
	if mode, ok := in.GetMode(); ok {
		n.mode = n.mode&syscall.S_IFMT | mode&0o777
	}
	if at, ok := in.GetMTime(); ok {
		if errno := n.disk.begin("attr", n.name()); errno != 0 {
			return errno
		}
		n.mtime = at
	}
	n.attr(&out.Attr)
	return 0
}

// name is for Op alone: what go-fuse knows the node as.
func (n *node) name() string {
	name, _ := n.Parent()
	return name
}

func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	from := min(int(off), len(n.data))
	// The answer leaves after the lock.
	return fuse.ReadResultData(p[:copy(p, n.data[from:])]), 0
}

func (n *node) Write(_ context.Context, _ fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if errno := n.disk.begin("write", n.name()); errno != 0 {
		return 0, errno
	}
	n.dirty()
	if end := int(off) + len(p); end > len(n.data) {
		n.resize(end)
	}
	copy(n.data[off:], p)
	return uint32(len(p)), 0
}

// Fsync makes a file's octets or a directory's names durable.
func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if errno := n.disk.begin("sync", n.name()); errno != 0 {
		return errno
	}
	n.makeDurable()
	return 0
}

func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Blocks, out.Bfree, out.Bavail, out.Bsize, out.NameLen = 1<<20, 1<<19, 1<<19, page, 255
	return 0
}
