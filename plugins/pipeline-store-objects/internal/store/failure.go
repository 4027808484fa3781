package store

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	"gocloud.dev/gcerrors"
	"google.golang.org/api/googleapi"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// answer is what a server said, whichever cloud it is of.
type answer struct {
	status int
	code   string // the cloud's own word
	text   string
	after  time.Duration
}

// answerOf finds the server's answer in an error of an SDK.
func answerOf(err error) (a answer, ok bool) {
	var api smithy.APIError
	if errors.As(err, &api) {
		a.code, a.text, ok = api.ErrorCode(), api.ErrorMessage(), true
	}
	var s3 *awshttp.ResponseError
	if errors.As(err, &s3) && s3.HTTPStatusCode() != 0 {
		a.status, ok = s3.HTTPStatusCode(), true
		if s3.Response != nil {
			a.after = retryAfter(s3.Response.Header)
		}
	}
	var azure *azcore.ResponseError
	if errors.As(err, &azure) {
		a.status, a.code, ok = azure.StatusCode, azure.ErrorCode, true
		if azure.RawResponse != nil {
			a.after = retryAfter(azure.RawResponse.Header)
		}
	}
	var google *googleapi.Error
	if errors.As(err, &google) {
		a.status, a.text, a.after, ok = google.Code, google.Message, retryAfter(google.Header), true
		if len(google.Errors) > 0 {
			a.code = google.Errors[0].Reason
		}
	}
	return a, ok
}

func (a answer) String() string {
	var parts []string
	if a.status != 0 {
		parts = append(parts, strconv.Itoa(a.status))
	}
	for _, s := range []string{a.code, a.text} {
		if s != "" && !strings.Contains(strings.Join(parts, " "), s) {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, " ")
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// The words of the clouds for one thing.
var (
	slowDown  = []string{"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "ServerBusy", "rateLimitExceeded", "userRateLimitExceeded"}
	bucketOut = []string{"NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "ContainerBeingDeleted"}
	noEntry   = []string{
		"AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidToken", "TokenRefreshRequired",
		"AuthenticationFailed", "AuthorizationFailure", "AuthorizationPermissionMismatch", "RequestTimeTooSkewed", "forbidden", "authError",
		"XAdminUserNotFound", // of versitygw, with 404: a key that it doesn't know
	}
	// whoWeAre are those of noEntry that are of all objects.
	whoWeAre = []string{
		"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidToken",
		"TokenRefreshRequired", "AuthenticationFailed", "RequestTimeTooSkewed", "authError", "XAdminUserNotFound",
	}
	// expired are those of noEntry that new credentials mend.
	expired   = []string{"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
	elsewhere = []string{"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "TemporaryRedirect"}
	// brokenOff is that an upload didn't come whole, or that its parts are gone:
	// the answer to its end may have been lost, or somebody aborted it. It is
	// made again whole.
	brokenOff = []string{
		"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "InvalidBlockList", "RequestTimeout", "IncompleteBody", "BadDigest",
		"InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "Md5Mismatch", "OperationTimedOut",
	}
	room = []string{"QuotaExceeded", "QuotaExceededException", "InsufficientStorage", "XMinioStorageFull", "quotaExceeded"}
)

func noBucket(err error) bool {
	a, ok := answerOf(err)
	return ok && (slices.Contains(bucketOut, a.code) || strings.Contains(a.text, "specified bucket does not exist"))
}

// unconditional reports whether a server refused a write because of its
// condition, which it doesn't know.
func unconditional(err error) bool {
	a, ok := answerOf(err)
	return ok && (a.code == "NotImplemented" || a.status == http.StatusNotImplemented)
}

// failure returns what is told of an error: its class by the server's answer
// (pkg/fault), and what to do.
func failure(err error) objects.Failure {
	if f := fault.As(err); f != nil {
		return objects.Failure{Class: f.Class, Text: f.Text, Hint: f.Hint, Key: f.Key}
	}
	if errors.Is(err, errListing) {
		return objects.Failure{Class: fault.Unavailable, Text: err.Error()}
	}
	a, answered := answerOf(err)
	f := objects.Failure{Class: fault.Unavailable, Text: "the server answered " + a.String(), RetryAfter: a.after}
	is := func(words []string) bool { return slices.Contains(words, a.code) }
	switch {
	case errors.Is(err, errNoCondition):
		return objects.Failure{Class: fault.Config, Text: err.Error(), Unconditional: true}
	case !answered:
		return unanswered(err)
	case noBucket(err):
		f.Class, f.Key = fault.Config, "path"
		f.Hint = "make the bucket, or correct its name or the server that the address names"
	case gcerrors.Code(err) == gcerrors.FailedPrecondition, a.code == "ConditionNotMet", a.code == "BlobAlreadyExists",
		a.status == http.StatusPreconditionFailed:
		f.There = true
	case gcerrors.Code(err) == gcerrors.NotFound && !is(brokenOff) && a.status != http.StatusMovedPermanently:
		f.Missing = true
	case is(brokenOff):
	case is(slowDown), a.status == http.StatusTooManyRequests, a.status == http.StatusServiceUnavailable:
		f.Class = fault.Throttled
		f.Hint = "run again later: it goes on where it stopped"
	case is(elsewhere), a.status == http.StatusMovedPermanently:
		f.Class, f.Key = fault.Config, "path"
		f.Hint = "name the bucket's own region in the address: s3://bucket/prefix?region=…"
	case is(room), a.status == http.StatusInsufficientStorage:
		f.Class = fault.Full
		f.Hint = "raise the quota or make room, and run again: it goes on where it stopped"
	case is(noEntry), a.status == http.StatusUnauthorized, a.status == http.StatusForbidden:
		f.Class, f.Refused = fault.Auth, !is(whoWeAre)
		f.Hint = "check the credentials, and that they may list, read, write and delete there: docs/reference/object-storage.md says where they come from and what they need"
	case a.status >= 500:
		f.Failed = true
		f.Hint = "see whether the server is well, and run again: it goes on where it stopped"
	case a.status == http.StatusConflict:
		// Two writes at once: the later try sees which one won.
	case a.code == "KeyTooLongError":
		f.Class, f.Refused = fault.Message, true
		f.Hint = "write with another name template or a smaller max_path"
	case a.status >= 400 && a.status < 500 && a.status != http.StatusRequestTimeout:
		f.Class, f.Refused = fault.Config, true
		f.Hint = "docs/reference/object-storage.md has the parameters of an address for servers that aren't quite like Amazon's"
	}
	return f
}

// unanswered is the failure of a call that no server answered.
func unanswered(err error) objects.Failure {
	text, said := withoutAddress(err)
	f := objects.Failure{Class: fault.Unavailable, Text: text}
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	switch {
	case objects.Silence(err) > 0:
		f.Text = "the server said nothing for " + objects.Silence(err).String()
		f.Hint = "see whether the server is well, and run again: it goes on where it stopped; silence=10m in the address waits longer"
	case errors.Is(err, context.Canceled):
	case errors.Is(err, fs.ErrNotExist), gcerrors.Code(err) == gcerrors.NotFound:
		f.Missing = true
	case gcerrors.Code(err) == gcerrors.FailedPrecondition:
		f.There = true
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		f.Class, f.Hint = fault.Full, "make room on the disk and run again: it goes on where it stopped"
	case errors.Is(err, syscall.ENAMETOOLONG):
		f.Class, f.Refused, f.Hint = fault.Message, true, "write with another name template or a smaller max_path"
	case errors.Is(err, fs.ErrPermission):
		f.Class, f.Hint, f.Key = fault.Config, "give the user who runs this the right to write there, or write to another path", "path"
	case strings.Contains(said, "no EC2 IMDS role found"):
		f.Class = fault.Auth
		f.Text = "no credentials were found: not in the environment, not in files of the cloud's own, and this machine has no role"
		f.Hint = "docs/reference/object-storage.md says where they are looked for"
	case strings.Contains(said, "credentials"):
		f.Class = fault.Auth
		f.Text = "no credentials were found: " + text
		f.Hint = "docs/reference/object-storage.md says where they are looked for"
	case strings.Contains(said, "Missing Region"), strings.Contains(said, "region"):
		f.Class, f.Key = fault.Config, "path"
		f.Hint = "name the region in the address, as in s3://bucket/prefix?region=eu-central-1, or in AWS_REGION"
	case errors.As(err, &certificate):
		f.Class = fault.Config
		f.Hint = "have the authority that signed the server's certificate in SSL_CERT_FILE; for S3 AWS_CA_BUNDLE names such a file as well"
	case errors.Is(err, http.ErrSchemeMismatch):
		f.Class, f.Key = fault.Config, "path"
		f.Text = "the server speaks HTTP without TLS"
		f.Hint = "write endpoint=http://… in the address, or the server's port for TLS"
	case errors.As(err, &dns):
		f.Text = "the name " + dns.Name + " of the server can't be resolved: " + dns.Err
		f.Hint = "check the endpoint in the address, and the network"
	case said != text: // it was sent, or was to be
		f.Hint = "check the endpoint in the address, and whether a store of objects answers there; then run again: it goes on where it stopped"
	}
	return f
}

// withoutAddress returns what went wrong with the server in place of the whole
// address of a request, which may hold a signature of Azure's (I9), and without
// the words that an SDK puts around it; and what is said beside the request: a
// name in an address says nothing of what went wrong.
func withoutAddress(err error) (text, said string) {
	var request *url.Error
	if !errors.As(err, &request) {
		var operation *smithy.OperationError
		if errors.As(err, &operation) && operation.Err != nil {
			err = operation.Err
		}
		return err.Error(), err.Error()
	}
	server := "the server"
	if at, err := url.Parse(request.URL); err == nil && at.Host != "" {
		server += " " + at.Host
	}
	before, after, found := strings.Cut(err.Error(), request.Error())
	if found {
		said = before + after
	}
	var dial *net.OpError
	var number syscall.Errno
	switch {
	case errors.As(request.Err, &dial) && dial.Op == "dial" && errors.As(dial, &number):
		return server + " can't be reached: " + number.Error(), said
	case errors.Is(request.Err, io.EOF), errors.Is(request.Err, syscall.ECONNRESET), errors.Is(request.Err, syscall.EPIPE):
		return server + " ended the connection without an answer", said
	}
	return server + " wasn't asked to the end: " + request.Err.Error(), said
}
