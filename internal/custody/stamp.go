package custody

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // of RFC 3161's first form
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"time"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"
)

// stampPatience is how long an authority may take to answer.
const stampPatience = 30 * time.Second

// maxStamp bounds an authority's answer (I5).
const maxStamp = 1 << 20

// askStamp asks a time-stamping authority to say that the message was there
// (RFC 3161 §3.4), and returns its answer once it is checked.
func askStamp(ctx context.Context, url string, message []byte) ([]byte, error) {
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(message)
	ask, err := (&timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Certificates: true, Nonce: nonce}).Marshal()
	if err != nil {
		return nil, fmt.Errorf("make a timestamp request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, stampPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(ask))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/timestamp-query")
	req.Header.Set("Accept", "application/timestamp-reply")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxStamp))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, resp.Status)
	}
	got, err := verifyStamp(answer, message)
	if err != nil {
		return nil, fmt.Errorf("the answer of %s: %w", url, err)
	}
	if got.Nonce == nil || got.Nonce.Cmp(nonce) != 0 {
		return nil, fmt.Errorf("the answer of %s is to another request", url)
	}
	return answer, nil
}

// verifyStamp checks a timestamp: that its signature is good, was made by a
// certificate for timestamps, and that it is of the message. Whether to trust
// that certificate is for who reads it: openssl ts -verify.
func verifyStamp(answer, message []byte) (*timestamp.Timestamp, error) {
	got, err := timestamp.ParseResponse(answer)
	if err != nil {
		return nil, fmt.Errorf("it is no timestamp: %w", err)
	}
	// Without a certificate the library checks nothing.
	if !slices.ContainsFunc(got.Certificates, func(c *x509.Certificate) bool { return slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageTimeStamping) }) {
		return nil, errors.New("no certificate for timestamps is in it")
	}
	if err := boundToSigner(got.RawToken); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(message)
	if got.HashAlgorithm != crypto.SHA256 || !bytes.Equal(got.HashedMessage, sum[:]) {
		return nil, errors.New("it is of other octets than the record has now")
	}
	return got, nil
}

// The attributes by which a timestamp names the certificate that signed it
// (RFC 5035 §3): without them any certificate with the same key would do.
var (
	signingCertificate   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 12}
	signingCertificateV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
)

// certificateID is an ESSCertID or ESSCertIDv2.
type certificateID struct {
	Algorithm pkix.AlgorithmIdentifier `asn1:"optional"`
	Hash      []byte
	Issuer    asn1.RawValue `asn1:"optional"`
}

type signingCertificates struct {
	IDs      []certificateID
	Policies asn1.RawValue `asn1:"optional"`
}

// boundToSigner checks that the signed attributes name the certificate that is
// in the timestamp, as it is (RFC 3161 §2.4.1, RFC 5816).
func boundToSigner(token []byte) error {
	p7, err := pkcs7.Parse(token)
	if err != nil {
		return fmt.Errorf("it is no timestamp: %w", err)
	}
	signer := p7.GetOnlySigner()
	if signer == nil {
		return errors.New("the certificate that signed it isn't in it")
	}
	for _, form := range []struct {
		oid asn1.ObjectIdentifier
		sum func([]byte) []byte
	}{
		{signingCertificateV2, func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }},
		{signingCertificate, func(b []byte) []byte { s := sha1.Sum(b); return s[:] }}, //nolint:gosec // the standard's
	} {
		var named signingCertificates
		if p7.UnmarshalSignedAttribute(form.oid, &named) != nil || len(named.IDs) == 0 {
			continue
		}
		if alg := named.IDs[0].Algorithm.Algorithm; len(alg) > 0 && !alg.Equal(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}) {
			sum := sha512.Sum512(signer.Raw)
			if alg.Equal(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}) && bytes.Equal(named.IDs[0].Hash, sum[:]) {
				return nil
			}
			return errors.New("it names its certificate by a hash that isn't known here, or by another one's")
		}
		if bytes.Equal(named.IDs[0].Hash, form.sum(signer.Raw)) {
			return nil
		}
		return errors.New("it was signed by another certificate than the one in it")
	}
	return errors.New("it doesn't name the certificate that signed it")
}
