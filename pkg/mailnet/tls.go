package mailnet

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// TLSConfig is the `tls:` block of a source's config. The zero value checks
// the server's certificate against the system's authorities.
type TLSConfig struct {
	CAFile             string `json:"ca_file,omitempty" doc:"PEM file with the authorities to trust instead of the system's"`
	ServerName         string `json:"server_name,omitempty" doc:"name that the server's certificate must carry, when it isn't the host of the address"`
	InsecureSkipVerify bool   `json:"insecure_skip_verify,omitempty" doc:"accept any certificate: whoever is in between reads password and mail"`
}

// Client returns the configuration for a connection to host. TLS 1.2 is the
// oldest version spoken (RFC 8997).
func (t TLSConfig) Client(host string) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: host, InsecureSkipVerify: t.InsecureSkipVerify, MinVersion: tls.VersionTLS12}
	if t.ServerName != "" {
		cfg.ServerName = t.ServerName
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fault.As(fault.Wrap(fault.Config, err, "read the authorities")).WithKey("tls.ca_file")
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Config, "%s holds no certificate in PEM form", t.CAFile).
				WithHint("it must have a block that starts with -----BEGIN CERTIFICATE-----").WithKey("tls.ca_file")
		}
	}
	return cfg, nil
}
