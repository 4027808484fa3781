package job

import (
	"encoding/json"

	"github.com/mailhaul/pipeline/pkg/objects"
)

// addressOf returns the address of the place in object storage that a sink
// writes to, from the key that sinks call it by; empty for one that writes
// elsewhere.
func addressOf(config []byte) string {
	var c struct{ Path any }
	if json.Unmarshal(config, &c) != nil {
		return "" // a plugin of another shape
	}
	if path, ok := c.Path.(string); ok && objects.IsAddress(path) {
		return path
	}
	return ""
}
