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
	whole  bool
	direct direct
}

// handle is an open temporary file.
type handle struct {
	fd     int
	direct bool // its next write goes past the page cache
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

// create makes a new temporary file.
func (d *disk) create(name string) (handle, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.temp, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
	})
	return handle{fd: fd}, err
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

func (d *disk) closeFile(h handle) error { return unix.Close(h.fd) }

func (d *disk) remove(name string) error { return unix.Unlinkat(d.temp, name, 0) }

// setTime sets the time of change of a temporary file. Some file systems
// can't hold it; that costs no mail.
func (d *disk) setTime(name string, at time.Time) error {
	ts, err := unix.TimeToTimespec(at)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(d.temp, name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}, 0)
}

// place gives a temporary file its name. The directory is made when the
// rename finds it missing: in most cases it is there.
func (d *disk) place(temp, name string) error {
	err := unix.Renameat(d.temp, temp, d.dir, name)
	if err != unix.ENOENT {
		return err
	}
	for i := range len(name) {
		if name[i] == '/' {
			if err := unix.Mkdirat(d.dir, name[:i], 0o755); err != nil && err != unix.EEXIST {
				return err
			}
		}
	}
	return unix.Renameat(d.temp, temp, d.dir, name)
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
