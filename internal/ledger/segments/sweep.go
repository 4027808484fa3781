package segments

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/pkg/objects"
)

// Sweep deletes the objects under prefix that no manifest names and that none
// will: what workers left that died between storing one and naming it, or
// before they had deleted what a snapshot stands for. Tasks may be under way
// meanwhile. It returns how many it deleted.
func Sweep(ctx context.Context, kv jetstream.KeyValue, bucket *objects.Bucket, prefix string) (n int, err error) {
	if prefix == "" {
		prefix = "ledger/"
	}
	var m *Manifest
	named := map[string]bool{}
	for listed, err := range bucket.List(ctx, prefix, false) {
		if err != nil {
			return n, err
		}
		key := listed.Key[len(prefix):]
		task, fence, ok := parseKey(key)
		if !ok {
			continue // not ours
		}
		// The manifest is read after the listing had the object: an object
		// that it doesn't name then can only be named by its own fence's owner.
		if m == nil || m.Task != task {
			if m, err = Load(ctx, kv, task); err != nil {
				return n, err
			}
			if m == nil {
				m = &Manifest{Task: task, State: Taken} // nobody knows what it is: it stays
			}
			clear(named)
			for _, o := range m.objects() {
				named[o.Key] = true
			}
		}
		if named[key] || fence > m.Fence || fence == m.Fence && m.State == Taken {
			continue
		}
		if err := bucket.Delete(ctx, listed.Key); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
