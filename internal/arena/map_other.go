//go:build !linux

package arena

import (
	"os"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// New returns nil: this system has no memory that can be handed on and not be
// cut.
func New(int) (*Arena, *os.File, error) { return nil, nil, nil }

// Open says that there is none.
func Open(int) (*Arena, error) {
	return nil, fault.New(fault.Bug, "the host shares memory, on a system without it")
}
