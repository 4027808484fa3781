package store

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob"
	"gocloud.dev/blob/azureblob"

	"github.com/mailhaul/pipeline/pkg/objects"
)

// openAzure is azureblob's own opener with our transport and patience.
func openAzure(ctx context.Context, u *url.URL, t *http.Transport) (*blob.Bucket, error) {
	core := azcore.ClientOptions{
		Transport: &http.Client{Transport: &unsilent{t}},
		Retry:     policy.RetryOptions{MaxRetries: tries - 1, MaxRetryDelay: longestPause},
	}
	o := azureblob.URLOpener{
		ServiceURLOptions: *azureblob.NewDefaultServiceURLOptions(),
		MakeClient: func(service azureblob.ServiceURL, name azureblob.ContainerName) (*container.Client, error) {
			return azureContainer(service, name, &container.ClientOptions{ClientOptions: core})
		},
	}
	if q := u.Query(); o.ServiceURLOptions.SASToken != "" && (q.Has("domain") || q.Has("protocol") || q.Has("storage_account")) {
		return nil, errors.New("the token in AZURE_STORAGE_SAS_TOKEN is of one server: domain, protocol and storage_account can't stand in the address as well")
	}
	return o.OpenBucketURL(ctx, u)
}

// azureContainer looks for credentials where azureblob does.
func azureContainer(service azureblob.ServiceURL, name azureblob.ContainerName, o *container.ClientOptions) (*container.Client, error) {
	address, err := url.JoinPath(string(service), string(name))
	if err != nil {
		return nil, errors.New("the address of the container can't be made") // the parser's error may show a token
	}
	account, key := os.Getenv("AZURE_STORAGE_ACCOUNT"), os.Getenv("AZURE_STORAGE_KEY")
	connection := cmp.Or(os.Getenv("AZURE_STORAGE_CONNECTION_STRING"), os.Getenv("AZURE_STORAGEBLOB_CONNECTIONSTRING"))
	switch {
	case account != "" && key != "":
		c, err := container.NewSharedKeyCredential(account, key)
		if err != nil {
			return nil, errors.New("the key in AZURE_STORAGE_KEY can't be read: it should be base64")
		}
		return container.NewClientWithSharedKeyCredential(address, c, o)
	case os.Getenv("AZURE_STORAGE_SAS_TOKEN") != "":
		return container.NewClientWithNoCredential(address, o)
	case connection != "":
		return container.NewClientFromConnectionString(connection, string(name), o)
	}
	c, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: o.ClientOptions})
	if err != nil {
		return nil, err
	}
	return container.NewClient(address, c, o)
}

// unsilent keeps the SDK from trying again where a server said nothing: it
// took long enough, and the caller decides.
type unsilent struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (u *unsilent) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := u.RoundTripper.RoundTrip(r)
	if objects.Silence(err) > 0 {
		return nil, final{err}
	}
	return res, err
}

// final is an error that the SDK doesn't try again after (azcore's
// errorinfo.NonRetriable).
type final struct{ error }

// NonRetriable implements that interface.
func (final) NonRetriable() {}

// Unwrap returns the error.
func (f final) Unwrap() error { return f.error }
