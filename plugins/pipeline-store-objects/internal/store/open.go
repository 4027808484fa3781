package store

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	gcaws "gocloud.dev/aws"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // azblob://
	"gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/gcsblob" // gs://
	"gocloud.dev/blob/s3blob"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// open opens the bucket of an address. It asks no server.
func open(address string) (*blob.Bucket, error) {
	ctx := context.Background() // the bucket outlives the call that opens it
	u, err := url.Parse(address)
	if err != nil {
		return nil, fault.New(fault.Config, "the address of the bucket can't be read").WithKey("path")
	}
	var b *blob.Bucket
	switch u.Scheme {
	case "s3":
		b, err = openS3(ctx, u)
	case "file":
		b, err = fileblob.OpenBucket(u.Path, &fileblob.Options{CreateDir: true, NoTempDir: true, DirFileMode: 0o755})
	default:
		b, err = blob.OpenBucket(ctx, address)
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

// tries is how often the SDK does a request before the caller is told: a part
// of a big object is worth a few more than a small one, whose caller tries it
// again whole.
const tries = 4

// idle is how long a connection may be silent before it is given up.
const idle = 2 * time.Minute

// openS3 is s3blob.URLOpener with a patience of our own, enough connections
// for many small objects at once, and path-style addresses where the server
// isn't Amazon's: most others know no other.
func openS3(ctx context.Context, u *url.URL) (*blob.Bucket, error) {
	q := u.Query()
	take := func(name string) string {
		v := q.Get(name)
		q.Del(name)
		return v
	}
	flag := func(name string, preset bool) (bool, error) {
		v := take(name)
		if v == "" {
			return preset, nil
		}
		on, err := strconv.ParseBool(v)
		if err != nil {
			return false, fault.New(fault.Config, "the parameter %s is %q (expected true or false)", name, v).WithKey("path")
		}
		return on, nil
	}
	o := &s3blob.Options{EncryptionType: types.ServerSideEncryption(take("ssetype")), KMSEncryptionID: take("kmskeyid")}
	own := q.Get("endpoint") != ""
	pathStyle, err := flag("use_path_style", own)
	if err != nil {
		return nil, err
	}
	accelerate, err := flag("accelerate", false)
	if err != nil {
		return nil, err
	}
	cfg, err := gcaws.V2ConfigFromURLParams(ctx, q)
	if err != nil {
		return nil, err
	}
	if cfg.Region == "" && own {
		cfg.Region = "us-east-1" // servers of one's own seldom have regions; signatures need one
	}
	cfg.HTTPClient = &http.Client{Transport: transport(), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	cfg.Retryer = func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff = tries, 5*time.Second
			o.RateLimiter = unlimited{}
		})
	}
	o.RequestChecksumCalculation = cfg.RequestChecksumCalculation
	return s3blob.OpenBucket(ctx, s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle, o.UseAccelerate = pathStyle, accelerate
		o.DisableLogOutputChecksumValidationSkipped = true // an object of many parts has no sum of the whole
	}), u.Host, o)
}

// unlimited lets every try happen: the pauses between them are what spares the
// server.
type unlimited struct{}

func (unlimited) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}

func (unlimited) AddTokens(uint) error { return nil }

// transport is Go's own with as many connections as there are uploads, and an
// end to those on which nothing moves.
func transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 256, 256
	d := net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &moving{Conn: c}, nil
	}
	return t
}

// moving is a connection that ends when nothing was read or written for a
// while.
type moving struct{ net.Conn }

func (c *moving) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(idle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *moving) Write(p []byte) (int, error) {
	now := time.Now().Add(idle)
	if err := c.SetDeadline(now); err != nil { // an answer is waited for from here on
		return 0, err
	}
	return c.Conn.Write(p)
}
