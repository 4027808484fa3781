package objects

import (
	"net"
	"os"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// EnvListener says to the store's process that its listening socket is the
// first file that it was given: the starter makes it, so that who calls needs
// not know whether the process runs already, or again.
const EnvListener = "PIPELINE_STORE_LISTENER"

// listenerFile is the first file beyond the standard three.
const listenerFile = 3

// Environ returns those of the starter's environment variables in which the
// clouds' SDKs look for credentials, regions and proxies. No other program of
// the pipeline gets them (I9).
func Environ() []string {
	var out []string
	for _, v := range os.Environ() {
		for _, prefix := range []string{"AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "STORAGE_EMULATOR_HOST=", "HTTP_PROXY=", "HTTPS_PROXY=", "NO_PROXY=", "http_proxy=", "https_proxy=", "no_proxy=", "IDENTITY_", "MSI_", "GCE_METADATA_"} {
			if strings.HasPrefix(v, prefix) {
				out = append(out, v)
				break
			}
		}
	}
	return out
}

// Inherited returns the listener that the starter of this process made.
func Inherited() (net.Listener, error) {
	if os.Getenv(EnvListener) == "" {
		return nil, fault.New(fault.Config, "no socket was given")
	}
	f := os.NewFile(listenerFile, "store")
	defer f.Close() // the listener has its own
	return net.FileListener(f)
}
