package mailnet

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/url"
	"os"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// askAsClient gets a token for the application itself.
func (s *oauthSource) askAsClient(ctx context.Context) (*oauth2.Token, error) {
	c := clientcredentials.Config{ClientID: s.ClientID, TokenURL: s.TokenURL, Scopes: s.Scopes, AuthStyle: oauth2.AuthStyleInParams}
	if s.Certificate != "" {
		assertion, err := s.assertion(time.Now())
		if err != nil {
			return nil, err
		}
		c.EndpointParams = url.Values{
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {assertion},
		}
	} else {
		secret, err := s.ClientSecret.Value(ctx)
		if err != nil {
			return nil, err
		}
		c.ClientSecret = secret
	}
	return c.Token(ctx)
}

// assertion proves with the certificate's key who the application is
// (RFC 7523 §2.2). Microsoft finds the certificate by its SHA-1 in x5t.
func (s *oauthSource) assertion(now time.Time) (string, error) {
	cert, key, err := readCertificate(s.Certificate)
	if err != nil {
		return "", err
	}
	print := sha1.Sum(cert.Raw)
	var id [16]byte
	rand.Read(id[:])
	header, err := json.Marshal(map[string]string{"alg": "RS256", "typ": "JWT", "x5t": base64.RawURLEncoding.EncodeToString(print[:])})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"aud": s.TokenURL, "iss": s.ClientID, "sub": s.ClientID, "jti": hex.EncodeToString(id[:]),
		"nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(10 * time.Minute).Unix(),
	})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func readCertificate(file string) (*x509.Certificate, *rsa.PrivateKey, error) {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Config, "certificate "+file+": "+format, args...).
			WithHint("the file must hold a certificate and its RSA key in PEM form").WithKey("oauth2.certificate")
	}
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, bad("%w", err)
	}
	var cert *x509.Certificate
	var key *rsa.PrivateKey
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == "CERTIFICATE" && cert == nil:
			if cert, err = x509.ParseCertificate(block.Bytes); err != nil {
				return nil, nil, bad("%w", err)
			}
		case block.Type == "RSA PRIVATE KEY":
			if key, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
				return nil, nil, bad("%w", err)
			}
		case block.Type == "PRIVATE KEY":
			any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, bad("%w", err)
			}
			key, _ = any.(*rsa.PrivateKey)
		}
	}
	if cert == nil || key == nil {
		return nil, nil, bad("no certificate or no RSA key in it")
	}
	return cert, key, nil
}

func parseServiceKey(raw string) (serviceKey, error) {
	var key serviceKey
	// The cause isn't wrapped: it may quote the key (I9).
	if json.Unmarshal([]byte(raw), &key) != nil || key.Email == "" || key.Key == "" {
		return key, fault.New(fault.Config, "service_account isn't Google's JSON key").
			WithHint("give the file's contents, as in ${file:key.json}").WithKey("oauth2.service_account")
	}
	return key, nil
}
