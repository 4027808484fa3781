package target

import "github.com/mailhaul/pipeline/pkg/message"

// Put stores a message's octets as they come under path, relative to the
// target with "/" between levels, and returns how many there were. It reads
// the body to its end; of one that ends in an error nothing is left, and the
// error is returned. It is CreateFor, Place and Discard in one, for sinks that
// don't look at the octets, and as safe for concurrent use.
func (d *Dir) Put(m *message.Message, path string) (int64, error) { return put(d, m, path) }
