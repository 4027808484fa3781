// Package disk is a file system in memory for tests of what disks do: it can
// be full, fail, turn read-only, and lose power. On power loss it forgets what
// nobody made durable. It is mounted by FUSE, so that any program writes to
// it; Linux only.
//
// It is stricter than the file systems in use. The octets of a file are
// durable after an fsync of that file, its name after an fsync of its
// directory, and neither brings the other along. There is no journal that
// orders anything.
package disk
