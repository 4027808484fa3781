// Command pipeline exports mail: from source plugins through stages into sink
// plugins, as a YAML file says.
package main

import (
	"context"
	"os"
	_ "time/tzdata" // `timezone:` works on machines without a zone database

	"github.com/mailhaul/pipeline/internal/headroom"
)

func main() {
	withoutCore()
	room := headroom.New()
	code := execute(context.Background(), os.Args[1:], stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr})
	room.Keep()
	os.Exit(code)
}
