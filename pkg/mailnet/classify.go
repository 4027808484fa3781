package mailnet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Classify turns an error of the network or of TLS into a fault: one line
// that says what was tried and what came back, and a hint. Config is what
// only the user can mend, so that nobody retries it; all else is Unavailable.
// An error that has a class already keeps it, a cancelled context stays
// itself. nil stays nil.
func Classify(err error, tried string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if fault.As(err) != nil {
		return fault.Wrap(fault.Unavailable, err, "%s", tried)
	}
	config := func(key, hint, format string, args ...any) error {
		f := fault.New(fault.Config, "%s: "+format, append([]any{tried}, args...)...).WithKey(key).WithHint("%s", hint)
		f.Err = err
		return f
	}
	away := func(hint, format string, args ...any) error {
		f := fault.New(fault.Unavailable, "%s: "+format, append([]any{tried}, args...)...).WithHint("%s", hint)
		f.Err = err
		return f
	}
	var (
		dns      *net.DNSError
		invalid  x509.CertificateInvalidError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		record   tls.RecordHeaderError
		alert    tls.AlertError
		timeout  net.Error
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return config("address", "check the spelling of address", "unknown host %q", dns.Name)
	case errors.As(err, &dns):
		return away("check this machine's network and name server", "the name server can't say who %q is: %s", dns.Name, dns.Err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return config("tls", "have the server's certificate renewed, or check this machine's clock",
			"the server's certificate is expired or not yet valid (%s to %s)",
			invalid.Cert.NotBefore.UTC().Format("2006-01-02"), invalid.Cert.NotAfter.UTC().Format("2006-01-02"))
	case errors.As(err, &invalid):
		return config("tls", "have the server's certificate mended", "the server's certificate isn't valid: %s", invalid.Error())
	case errors.As(err, &unknown):
		return config("tls.ca_file", "name the authority's certificate in tls.ca_file", "the server's certificate is signed by an unknown authority")
	case errors.As(err, &hostname):
		return config("tls.server_name", "use the name that the certificate carries as address, or set tls.server_name", "the server's certificate isn't for this name: %s", hostname.Error())
	case errors.As(err, &record):
		return config("security", "try security: starttls, or the port for TLS", "the server doesn't speak TLS on this port")
	case errors.As(err, &alert):
		return config("tls", "the server refuses the TLS connection: it may want another version or a client certificate", "%s", alert.Error())
	case errors.Is(err, syscall.ECONNREFUSED):
		return away("check the port and whether the server is up", "connection refused: nothing listens there")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return away("check this machine's network, its routes and the firewall", "no way to the host")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return away("the server or a firewall in between is silent; timeouts can be made longer", "no answer in time")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return away("run again to go on; if it happens each time, look at what stands in between: a firewall, a proxy, a limit of the server", "the connection was cut")
	}
	return away("", "%s", err.Error())
}
