package custody

import (
	"bytes"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Namespace is the one that signatures are made for: ssh-keygen -Y verify -n
// file.
const Namespace = "file"

// The form of a signature (PROTOCOL.sshsig of OpenSSH).
const (
	sigMagic = "SSHSIG"
	sigHash  = "sha512"
	sigBegin = "-----BEGIN SSH SIGNATURE-----\n"
	sigEnd   = "-----END SSH SIGNATURE-----\n"
)

// LoadKey reads an OpenSSH private key. The error is a fault.Config.
func LoadKey(path string) (ssh.Signer, error) {
	path, err := expand(path)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Wrap(fault.Config, err, "read the key that signs custody records").(*fault.Error).WithKey("custody.sign.ssh_key").
			WithHint("make one with: ssh-keygen -t ed25519 -N '' -f %s", path)
	}
	key, err := ssh.ParsePrivateKey(b)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fault.New(fault.Config, "the key %s has a passphrase, which nobody can enter in a run", path).WithKey("custody.sign.ssh_key").
			WithHint("name a key of its own without one: ssh-keygen -t ed25519 -N '' -f %s-custody", path)
	}
	if err != nil {
		return nil, fault.New(fault.Config, "the key %s can't be read: %w", path, err).WithKey("custody.sign.ssh_key").
			WithHint("name an OpenSSH private key, as ssh-keygen makes it")
	}
	return key, nil
}

// expand replaces a leading ~/.
func expand(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "~/")
	if !ok {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fault.Wrap(fault.Config, err, "find the home directory for %s", path)
	}
	return filepath.Join(home, rest), nil
}

// signedData is what a signature is made over.
func signedData(namespace string, message []byte) []byte {
	sum := sha512.Sum512(message)
	b := []byte(sigMagic)
	for _, s := range [][]byte{[]byte(namespace), nil, []byte(sigHash), sum[:]} {
		b = appendString(b, s)
	}
	return b
}

func appendString(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// sign returns the signature file of a message, as ssh-keygen -Y sign makes it.
func sign(key ssh.Signer, message []byte) ([]byte, error) {
	data := signedData(Namespace, message)
	var sig *ssh.Signature
	var err error
	if a, ok := key.(ssh.AlgorithmSigner); ok && key.PublicKey().Type() == ssh.KeyAlgoRSA {
		sig, err = a.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)
	} else {
		sig, err = key.Sign(rand.Reader, data)
	}
	if err != nil {
		return nil, fmt.Errorf("sign the record: %w", err)
	}
	b := binary.BigEndian.AppendUint32([]byte(sigMagic), 1)
	for _, s := range [][]byte{key.PublicKey().Marshal(), []byte(Namespace), nil, []byte(sigHash), ssh.Marshal(sig)} {
		b = appendString(b, s)
	}
	out := []byte(sigBegin)
	text := base64.StdEncoding.EncodeToString(b)
	for len(text) > 70 {
		out = append(append(out, text[:70]...), '\n')
		text = text[70:]
	}
	out = append(append(out, text...), '\n')
	return append(out, sigEnd...), nil
}

// verifySignature checks a signature file and returns the key that made it.
func verifySignature(file, message []byte) (ssh.PublicKey, error) {
	text, ok := bytes.CutPrefix(file, []byte(sigBegin))
	text, ok2 := bytes.CutSuffix(text, []byte(sigEnd))
	if !ok || !ok2 {
		return nil, errors.New("it is no SSH signature")
	}
	b, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		return nil, fmt.Errorf("it is no SSH signature: %w", err)
	}
	var s struct {
		Version   uint32
		Key       string
		Namespace string
		Reserved  string
		Hash      string
		Signature string
	}
	b, ok = bytes.CutPrefix(b, []byte(sigMagic))
	if !ok || ssh.Unmarshal(b, &s) != nil || s.Version != 1 {
		return nil, errors.New("it is no SSH signature")
	}
	if s.Namespace != Namespace || s.Hash != sigHash {
		return nil, fmt.Errorf("it is made for %q with %s, not for %q with %s", s.Namespace, s.Hash, Namespace, sigHash)
	}
	key, err := ssh.ParsePublicKey([]byte(s.Key))
	if err != nil {
		return nil, fmt.Errorf("its key can't be read: %w", err)
	}
	var sig ssh.Signature
	if err := ssh.Unmarshal([]byte(s.Signature), &sig); err != nil {
		return nil, fmt.Errorf("it is no SSH signature: %w", err)
	}
	if sig.Format == ssh.KeyAlgoRSA {
		return nil, errors.New("it is made with SHA-1")
	}
	if err := key.Verify(signedData(Namespace, message), &sig); err != nil {
		return nil, errors.New("it is over other octets than the record has now")
	}
	return key, nil
}

// signerLine is the line of allowed_signers for a key (ssh-keygen(1)).
func signerLine(pipeline string, key ssh.PublicKey) string {
	return fmt.Sprintf("%s namespaces=%q %s", pipeline, Namespace, ssh.MarshalAuthorizedKey(key))
}
