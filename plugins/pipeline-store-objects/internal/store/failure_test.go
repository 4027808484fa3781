package store

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/mailhaul/pipeline/pkg/fault"
)

func TestFailure(t *testing.T) {
	t.Parallel()
	request := func(address string) error {
		return fmt.Errorf("operation error S3: PutObject, %w",
			&url.Error{Op: "Put", URL: address, Err: errors.New("dial tcp: connection refused")})
	}
	sent := func(err error) error { // as the SDK of S3 has it
		return &smithy.OperationError{ServiceID: "S3", OperationName: "PutObject", Err: fmt.Errorf(
			"exceeded maximum number of attempts, 5, https response error StatusCode: 0, RequestID: , HostID: , request send failed, %w",
			&url.Error{Op: "Put", URL: "https://s3.test/mail/a.eml", Err: err})}
	}
	answered := func(status int, code string) error {
		return &awshttp.ResponseError{ResponseError: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: &smithy.GenericAPIError{Code: code},
		}}
	}
	for name, c := range map[string]struct {
		err       error
		class     fault.Class
		says, not string
	}{
		"a server that is away": {err: request("https://s3.test/mail/a.eml"), class: fault.Unavailable, says: "the server s3.test wasn't asked to the end: dial tcp"},
		"nothing listens": {
			err:   sent(&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}),
			class: fault.Unavailable, says: "the server s3.test can't be reached: connection refused", not: "RequestID",
		},
		"no answer": {err: sent(io.EOF), class: fault.Unavailable, says: "the server s3.test ended the connection without an answer", not: "RequestID"},
		"the SDK's own": {
			err:   &smithy.OperationError{ServiceID: "S3", OperationName: "PutObject", Err: errors.New("the body can't be rewound")},
			class: fault.Unavailable, says: "the body can't be rewound", not: "operation error",
		},
		"a name that sounds like a mistake": {
			err: request("https://s3.region.test/mail/credentials/a.eml"), class: fault.Unavailable, says: "s3.region.test", not: "credentials",
		},
		"a signature in the address": {
			err: request("https://acme.blob.test/mail/a.eml?sv=2024&sig=topsecret"), class: fault.Unavailable, says: "acme.blob.test", not: "topsecret",
		},
		"no credentials": {
			err:   fmt.Errorf("get identity: failed to refresh cached credentials, %w", &url.Error{Op: "Get", URL: "http://169.254.169.254/latest", Err: errors.New("timeout")}),
			class: fault.Auth, says: "no credentials were found",
		},
		"TLS where there is none": {
			err:   fmt.Errorf("operation error S3: ListObjectsV2, %w", &url.Error{Op: "Get", URL: "https://s3.test/mail", Err: http.ErrSchemeMismatch}),
			class: fault.Config, says: "without TLS",
		},
		"the words of the SDK": {err: request("https://s3.test/mail/a.eml"), class: fault.Unavailable, says: "refused", not: "operation error"},
		"no role": {
			err:   errors.New("get credentials: failed to refresh cached credentials, no EC2 IMDS role found, operation error ec2imds: GetMetadata"),
			class: fault.Auth, says: "not in the environment", not: "ec2imds",
		},
		"a key that versitygw doesn't know": {err: answered(404, "XAdminUserNotFound"), class: fault.Auth, says: "XAdminUserNotFound"},
		"no region":                         {err: errors.New("Invalid Configuration: Missing Region"), class: fault.Config, says: "Missing Region"},
		"an upload that's gone":             {err: answered(404, "NoSuchUpload"), class: fault.Unavailable, says: "NoSuchUpload"},
		"octets that came late":             {err: answered(400, "RequestTimeout"), class: fault.Unavailable, says: "RequestTimeout"},
		"a wrong request":                   {err: answered(400, "InvalidArgument"), class: fault.Config, says: "InvalidArgument"},
		"other octets came":                 {err: answered(400, "BadDigest"), class: fault.Unavailable, says: "BadDigest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := failure(c.err)
			if f.Class != c.class || f.Missing || !strings.Contains(f.Text, c.says) {
				t.Errorf("got %+v, want class %v and %q", f, c.class, c.says)
			}
			if c.not != "" && strings.Contains(f.Text, c.not) {
				t.Errorf("%q says %q", f.Text, c.not)
			}
		})
	}
}
