package target

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const errQuota = syscall.EDQUOT

// disk is the target's directory and that of its temporary files, held open:
// all names are looked up from there, and writing never strays to another
// file system when something is mounted over the path.
type disk struct {
	root string
	dir  int // opened before the first write, so that syncfs reports every write-back error since
	temp int
	// whole: syncfs on dir makes everything durable.
	whole bool
	// unnamed: temporary files have no name until they have their own.
	unnamed bool
	direct  direct
}

// handle is an open temporary file.
type handle struct {
	fd     int
	name   string // among the temporary files
	direct bool   // its next write goes past the page cache
}

func openDisk(root, temp string) (*disk, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	dir, err := retry(func() (int, error) { return unix.Open(root, flags, 0) })
	if err != nil {
		return nil, err
	}
	tmp, err := retry(func() (int, error) { return unix.Open(temp, flags, 0) })
	if err != nil {
		unix.Close(dir)
		return nil, err
	}
	d := &disk{root: root, dir: dir, temp: tmp}
	var st unix.Statfs_t
	if unix.Fstatfs(dir, &st) == nil {
		d.whole = syncsWhole(uint32(st.Type))
		d.unnamed = d.whole && linksUnnamed(tmp)
		d.direct.on.Store(goesDirect(uint32(st.Type)))
	}
	return d, nil
}

func (d *disk) close() error { return errors.Join(unix.Close(d.temp), unix.Close(d.dir)) }

// syncsWhole reports whether syncfs can be trusted with the file system: it is
// of a kind that writes back and commits its journal there, and the kernel
// reports write-back errors from syncfs, which it does since Linux 5.8. On
// FUSE the call never reaches the server; NFS and others aren't tried.
func syncsWhole(kind uint32) bool {
	switch kind {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
	default:
		return false
	}
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	release, _, _ := bytes.Cut(name.Release[:], []byte{0})
	parts := strings.FieldsFunc(string(release), func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return false
	}
	major, _ := strconv.Atoi(parts[0])
	minor, _ := strconv.Atoi(parts[1])
	return slices.Compare([]int{major, minor}, []int{5, 8}) >= 0
}

// create makes a new temporary file, whose name stands among them where it needs
// one.
func (d *disk) create(name string) (handle, error) {
	path, flags := name, unix.O_CREAT|unix.O_EXCL
	if d.unnamed {
		path, flags = ".", unix.O_TMPFILE
	}
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.temp, path, unix.O_WRONLY|unix.O_CLOEXEC|flags, 0o644)
	})
	return handle{fd: fd, name: name}, err
}

// write appends p to a file of at octets.
func (d *disk) write(h *handle, at int64, p []byte) error {
	n, err := d.direct.write(h, at, p)
	if err != nil {
		return err
	}
	for p = p[n:]; len(p) > 0; {
		n, err := unix.Write(h.fd, p)
		if err != nil && err != unix.EINTR {
			return err
		}
		p = p[max(n, 0):]
	}
	return nil
}

// discard takes a temporary file away. What stays behind is cleaned at the next
// Open.
func (d *disk) discard(h handle) {
	_ = unix.Close(h.fd)
	if !d.unnamed {
		_ = d.remove(h.name)
	}
}

func (d *disk) remove(name string) error { return unix.Unlinkat(d.temp, name, 0) }

// place closes a temporary file and gives it its name, in place of what may be
// there, and its time of change unless that is zero. After an error it is gone.
func (d *disk) place(h handle, name string, at time.Time) error {
	if d.unnamed {
		err := d.link(h, name, at)
		return errors.Join(err, unix.Close(h.fd))
	}
	err := unix.Close(h.fd)
	if err == nil {
		err = setTime(d.temp, h.name, at, 0)
	}
	if err != nil {
		_ = d.remove(h.name)
		return err
	}
	return d.rename(h.name, name)
}

// link gives a file without a name one.
func (d *disk) link(h handle, name string, at time.Time) error {
	if err := setTime(h.fd, "", at, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	err := d.within(name, func() error { return unix.Linkat(h.fd, "", d.dir, name, unix.AT_EMPTY_PATH) })
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// Another file is there: only a rename takes its place.
	if err := unix.Linkat(h.fd, "", d.temp, h.name, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	return d.rename(h.name, name)
}

// rename gives a temporary file that has a name another one. After an error it is
// gone.
func (d *disk) rename(temp, name string) error {
	err := d.within(name, func() error { return unix.Renameat(d.temp, temp, d.dir, name) })
	if err != nil {
		_ = d.remove(temp)
	}
	return err
}

// within calls place, which gives a file its name, and once more with the
// directories made where it finds them missing: in most cases they are there.
func (d *disk) within(name string, place func() error) error {
	err := place()
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	for i := range len(name) {
		if name[i] == '/' {
			if err := unix.Mkdirat(d.dir, name[:i], 0o755); err != nil && err != unix.EEXIST {
				return err
			}
		}
	}
	return place()
}

// setTime sets a file's time of change, unless that is zero.
func setTime(dir int, name string, at time.Time, flags int) error {
	if at.IsZero() {
		return nil
	}
	ts, err := unix.TimeToTimespec(at)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}, flags)
}

// linksUnnamed reports whether a temporary file needs no name: to make one, and
// to take it away from where the next has its own, is a third of what a small
// file costs. A process without privileges may give such a file its name from
// Linux 6.10 on.
func linksUnnamed(temp int) bool {
	fd, err := unix.Openat(temp, ".", unix.O_WRONLY|unix.O_CLOEXEC|unix.O_TMPFILE, 0o644)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	const name = "probe"
	if setTime(fd, "", time.Unix(0, 0), unix.AT_EMPTY_PATH) != nil || unix.Linkat(fd, "", temp, name, unix.AT_EMPTY_PATH) != nil {
		return false
	}
	return unix.Unlinkat(temp, name, 0) == nil
}

// sync makes everything durable; names are the files placed since the last
// time, and needed only where syncfs can't be trusted.
func (d *disk) sync(names []string) error {
	if d.whole {
		return unix.Syncfs(d.dir)
	}
	return syncEach(d.root, names)
}

// retry calls f again when a signal interrupted it.
func retry(f func() (int, error)) (int, error) {
	for {
		fd, err := f()
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
