package job

import (
	"context"
	"fmt"

	"github.com/mailhaul/pipeline/internal/config"
)

// Installed asks every plugin that can be found what it is. Those that don't
// answer are errors; the others come all the same.
func (j *Job) Installed(ctx context.Context) (plugins []config.InstalledPlugin, broken []error) {
	for _, f := range j.host.All() {
		d, err := j.host.Describe(ctx, f.Kind, f.Name)
		if err != nil {
			broken = append(broken, fmt.Errorf("%s plugin %s (%s): %w", f.Kind, f.Name, f.Path, err))
			continue
		}
		plugins = append(plugins, config.InstalledPlugin{Kind: f.Kind.String(), Name: f.Name, Schema: d.Schema})
	}
	return plugins, broken
}
