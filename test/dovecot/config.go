package dovecot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

func (s *Server) writeConf(ports []int) error {
	name, group, _, _, err := mailUser()
	if err != nil {
		return err
	}
	var rootless string
	if os.Getuid() != 0 {
		rootless = fmt.Sprintf("default_internal_user = %[1]s\ndefault_internal_group = %[2]s\ndefault_login_user = %[1]s\n", name, group)
		for _, service := range []string{"anvil", "imap-login", "pop3-login", "stats"} {
			rootless += "service " + service + " {\n  chroot =\n}\n"
		}
	}
	// Names are UTF-8 on disk, so that Deliver needs no encoder of its own.
	location := map[string]string{
		"maildir": "maildir:~/Maildir:UTF-8", "sdbox": "sdbox:~/sdbox", "mdbox": "mdbox:~/mdbox",
	}[s.format]
	plugins := ""
	if s.opts.Compress {
		plugins = "imap_zlib"
	}
	plaintext := "no"
	if s.opts.NoPlaintext {
		plaintext = "yes"
	}
	listener := func(name string, port int, ssl string) string {
		return fmt.Sprintf("  inet_listener %s {\n    address = 127.0.0.1\n    port = %d\n    ssl = %s\n  }\n", name, port, ssl)
	}
	text := fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
instance_name = %[2]s
protocols = imap pop3
listen = 127.0.0.1
log_path = %[1]s/log
%[3]s
disable_plaintext_auth = %[4]s
auth_mechanisms = plain login
auth_failure_delay = 0
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%%u %[1]s/users
}
userdb {
  driver = static
  args = uid=%[5]s gid=%[6]s home=%[1]s/home/%%u
}
first_valid_uid = 1
first_valid_gid = 1
ssl = yes
ssl_cert = <%[1]s/cert.pem
ssl_key = <%[1]s/key.pem
mail_location = %[7]s
namespace inbox {
  inbox = yes
  separator = %[8]s
}
mail_fsync = never
default_process_limit = 400
default_client_limit = 4000
protocol imap {
  mail_max_userip_connections = %[9]d
  mail_plugins = %[10]s
}
protocol pop3 {
  mail_max_userip_connections = %[9]d
  pop3_no_flag_updates = yes
  pop3_uidl_format = %%08Xu%%08Xv
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  client_limit = 5000
}
service imap-login {
  service_count = 0
%[11]s%[12]s}
service pop3-login {
  service_count = 0
%[13]s%[14]s}
service imap {
  process_limit = 400
}
service pop3 {
  process_limit = 400
}
%[15]s
`, s.Dir, filepath.Base(s.Dir), rootless, plaintext, name, group, location, s.opts.Separator,
		s.opts.MaxConnections, plugins,
		listener("imap", ports[0], "no"), listener("imaps", ports[1], "yes"),
		listener("pop3", ports[2], "no"), listener("pop3s", ports[3], "yes"), s.opts.Extra)
	return os.WriteFile(s.conf(), []byte(text), 0o644)
}

// certificates writes an authority and a certificate that it signed.
func (s *Server) certificates() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: now.AddDate(0, 0, -30), NotAfter: now.AddDate(0, 0, 30),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if s.opts.ExpiredCert {
		leaf.NotAfter = now.AddDate(0, 0, -1)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name, kind string
		der        []byte
		mode       os.FileMode
	}{
		{"ca.pem", "CERTIFICATE", caDER, 0o644},
		{"cert.pem", "CERTIFICATE", leafDER, 0o644},
		{"key.pem", "PRIVATE KEY", keyDER, 0o600},
	} {
		b := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})
		if err := os.WriteFile(filepath.Join(s.Dir, f.name), b, f.mode); err != nil {
			return err
		}
	}
	return nil
}
