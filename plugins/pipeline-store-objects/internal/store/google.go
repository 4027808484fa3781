package store

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"gocloud.dev/blob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/option"

	"github.com/mailhaul/pipeline/pkg/objects"
)

// openGoogle is gcsblob's own opener with our transport, an end to the SDK's
// tries, which else go on as long as the caller does, and an error where there
// are no credentials.
func openGoogle(ctx context.Context, u *url.URL, t *http.Transport) (*blob.Bucket, error) {
	o := gcsblob.URLOpener{}
	q := u.Query()
	switch {
	case q.Get("anonymous") == "true", q.Get("access_id") == "-", os.Getenv("STORAGE_EMULATOR_HOST") != "":
		o.Client = gcp.NewAnonymousHTTPClient(t)
		q.Del("anonymous") // it would bring a transport of its own
		q.Del("access_id")
	default:
		p := google.CredentialsParams{Scopes: []string{"https://www.googleapis.com/auth/cloud-platform"}, UniverseDomain: q.Get("universe_domain")}
		c, err := google.FindDefaultCredentialsWithParams(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("find the credentials: %w", err)
		}
		if o.Client, err = gcp.NewHTTPClient(t, gcp.CredentialsTokenSource(c)); err != nil {
			return nil, err
		}
		o.TokenSource = gcp.CredentialsTokenSource(c)
		if domain, err := c.GetUniverseDomain(); err == nil && domain != "" {
			o.Options.ClientOptions = append(o.Options.ClientOptions, option.WithUniverseDomain(domain))
		}
	}
	bare := *u
	bare.RawQuery = q.Encode()
	b, err := o.OpenBucketURL(ctx, &bare)
	if err != nil {
		return nil, err
	}
	var c *storage.Client
	if b.As(&c) {
		c.SetRetry(storage.WithMaxAttempts(tries), storage.WithBackoff(gax.Backoff{Max: longestPause}), storage.WithErrorFunc(func(err error) bool {
			return objects.Silence(err) == 0 && storage.ShouldRetry(err)
		}))
	}
	return b, nil
}
