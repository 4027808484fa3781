package store

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	gcaws "gocloud.dev/aws"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// openS3 is s3blob.URLOpener with a patience of our own, enough connections
// for many small objects at once, and path-style addresses where the server
// isn't Amazon's: most others know no other.
func openS3(ctx context.Context, u *url.URL, t *http.Transport) (*blob.Bucket, error) {
	q := u.Query()
	take := func(name string) string {
		v := q.Get(name)
		q.Del(name)
		return v
	}
	flag := func(name string) (on, given bool, err error) {
		v := take(name)
		if v == "" {
			return false, false, nil
		}
		if on, err = strconv.ParseBool(v); err != nil {
			return false, false, fault.New(fault.Config, "the parameter %s is %q (expected true or false)", name, v).WithKey("path")
		}
		return on, true, nil
	}
	o := &s3blob.Options{EncryptionType: types.ServerSideEncryption(take("ssetype")), KMSEncryptionID: take("kmskeyid")}
	own := q.Get("endpoint") != ""
	pathStyle, styled, err := flag("use_path_style")
	if err != nil {
		return nil, err
	}
	accelerate, _, err := flag("accelerate")
	if err != nil {
		return nil, err
	}
	cfg, err := gcaws.V2ConfigFromURLParams(ctx, q)
	if err != nil {
		return nil, err
	}
	if u.Query().Get("response_checksum_validation") == "" {
		// An object whose octets were altered on the server's disk has to be
		// read to be named by verify, which holds it against sums of its own.
		cfg.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	}
	// AWS_CA_BUNDLE stands in the client that the SDK made.
	if made, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		t.TLSClientConfig = made.GetTransport().TLSClientConfig.Clone()
	}
	cfg.HTTPClient = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	cfg.Retryer = func() aws.Retryer {
		return retryer{cfg.Credentials, retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff = tries, longestPause
			o.RateLimiter = unlimited{}
		})}
	}
	o.RequestChecksumCalculation = cfg.RequestChecksumCalculation
	return s3blob.OpenBucket(ctx, s3.NewFromConfig(cfg, func(o *s3.Options) {
		own = own || o.BaseEndpoint != nil // AWS_ENDPOINT_URL, or the profile's endpoint_url
		o.UsePathStyle, o.UseAccelerate = own, accelerate
		if styled {
			o.UsePathStyle = pathStyle
		}
		if o.Region == "" && own {
			o.Region = "us-east-1" // servers of one's own seldom have regions; signatures need one
		}
		o.DisableLogOutputChecksumValidationSkipped = true // an object of many parts has no sum of the whole
	}), u.Host, o)
}

// retryer says what the SDK does again.
type retryer struct {
	credentials aws.CredentialsProvider
	*retry.Standard
}

// IsErrorRetryable implements aws.Retryer.
func (r retryer) IsErrorRetryable(err error) bool {
	if objects.Silence(err) > 0 {
		return false // it took long enough: the caller decides
	}
	// Credentials that are renewed may end before they said: a clock is wrong,
	// or somebody withdrew them. The next try gets new ones.
	if a, ok := answerOf(err); ok && slices.Contains(expired, a.code) {
		if c, ok := r.credentials.(*aws.CredentialsCache); ok {
			c.Invalidate()
			return true
		}
	}
	return r.Standard.IsErrorRetryable(err)
}

// unlimited lets every try happen: the pauses between them are what spares the
// server.
type unlimited struct{}

func (unlimited) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}

func (unlimited) AddTokens(uint) error { return nil }
