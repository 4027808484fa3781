package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// flush makes the whole file system of the directory durable.
func flush(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}
