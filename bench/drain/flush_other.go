//go:build !linux

package main

import (
	"errors"
	"fmt"
	"runtime"
)

// flush is Linux's alone: the drain that writes files is measured there.
func flush(dir string) error {
	return fmt.Errorf("%w: flush %s on %s", errors.ErrUnsupported, dir, runtime.GOOS)
}
