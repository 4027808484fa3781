package store

import (
	"context"
	"net/url"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// open opens the bucket of an address. It asks no server but for credentials.
func open(address string) (*blob.Bucket, error) {
	ctx := context.Background() // the bucket outlives the call that opens it
	u, err := url.Parse(address)
	if err != nil {
		return nil, fault.New(fault.Config, "the address of the bucket can't be read").WithKey("path")
	}
	t := transport(takeSilence(u))
	var b *blob.Bucket
	switch u.Scheme {
	case "s3":
		b, err = openS3(ctx, u, t)
	case "gs":
		b, err = openGoogle(ctx, u, t)
	case "azblob":
		b, err = openAzure(ctx, u, t)
	default:
		b, err = fileblob.OpenBucket(u.Path, &fileblob.Options{CreateDir: true, NoTempDir: true, DirFileMode: 0o755})
	}
	if err != nil {
		f := unanswered(err)
		class := fault.Config
		if f.Class == fault.Auth {
			class = fault.Auth
		}
		e := fault.New(class, "open the bucket: %w", err).WithKey("path").
			WithHint("docs/reference/object-storage.md has the parameters of an address")
		if f.Hint != "" {
			e.Hint = f.Hint
		}
		return nil, e
	}
	return b, nil
}

// idle is how long a server may be silent before a connection to it is given
// up, where the address doesn't say: the end of an upload in many parts takes
// some servers a minute.
const idle = 2 * time.Minute

// takeSilence takes that parameter out of an address.
func takeSilence(u *url.URL) time.Duration {
	d := silenceOf(u)
	q := u.Query()
	q.Del(objects.ParameterSilence)
	u.RawQuery = q.Encode()
	if d == 0 {
		return idle
	}
	return d
}

// silenceOf returns that parameter; 0 where the address hasn't it.
func silenceOf(u *url.URL) time.Duration {
	d, err := time.ParseDuration(u.Query().Get(objects.ParameterSilence))
	if err != nil { // package objects has read it before
		return 0
	}
	return d
}
