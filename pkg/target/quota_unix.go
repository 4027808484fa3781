//go:build unix && !linux

package target

import "syscall"

const errQuota = syscall.EDQUOT
