// Command pipeline-store-objects keeps what sinks write in object storage: S3
// and what speaks its language, Google Cloud Storage, Azure Blob Storage. The
// SDKs of the clouds are in this program alone, which the pipeline starts when
// a sink's path is the address of a bucket. It isn't meant to be run by hand.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/plugins/pipeline-store-objects/internal/store"
)

func main() {
	l, err := objects.Inherited()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pipeline-store-objects keeps the pipeline's output in object storage; the pipeline starts it.")
		os.Exit(2)
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	err = store.Serve(context.Background(), l, os.Stdin, log)
	log.Error("the store of objects has ended", "error", err)
	os.Exit(1)
}
