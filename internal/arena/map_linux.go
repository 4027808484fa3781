package arena

import (
	"os"
	"runtime"

	"github.com/mailhaul/pipeline/pkg/fault"
	"golang.org/x/sys/unix"
)

// New returns an arena with so many places a side, at most Most, and the file
// that a plugin maps, which the caller closes once it was handed on. Where a
// system has no such memory, all are nil.
//
// The file can't be cut, or a plugin could take the memory from under the host
// (memfd_create(2), "file sealing").
func New(places int) (*Arena, *os.File, error) {
	places = min(max(places, 1), Most)
	fd, err := unix.MemfdCreate("mailhaul", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, nil, fault.New(fault.Config, "make memory for a plugin to share: %w", err)
	}
	f := os.NewFile(uintptr(fd), "shared memory")
	err = unix.Ftruncate(fd, int64(size(places)))
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	var memory []byte
	if err == nil {
		memory, err = unix.Mmap(fd, 0, size(places), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		f.Close()
		return nil, nil, fault.New(fault.Config, "make %d octets of memory for a plugin to share: %w", size(places), err)
	}
	a := &Arena{memory: memory, places: places}
	// Whoever reads or writes a place has the arena: with the last of them the
	// memory goes, and not with the process that shared it.
	runtime.AddCleanup(a, func(memory []byte) { _ = unix.Munmap(memory) }, memory)
	return a, f, nil
}

// Open maps the arena of the host in a plugin's process, from the file with
// this descriptor, which it closes. It is never unmapped.
func Open(fd int) (*Arena, error) {
	f := os.NewFile(uintptr(fd), "shared memory")
	if f == nil {
		return nil, fault.New(fault.Bug, "map the memory that the host shares: %d is no descriptor", fd)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.New(fault.Bug, "map the memory that the host shares: %w", err)
	}
	places, ok := placesOf(info.Size())
	if !ok {
		return nil, fault.New(fault.Bug, "map the memory that the host shares: it has %d octets", info.Size())
	}
	memory, err := unix.Mmap(fd, 0, size(places), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fault.New(fault.Bug, "map the %d octets that the host shares: %w", size(places), err)
	}
	return &Arena{memory: memory, places: places, plugin: true}, nil
}
