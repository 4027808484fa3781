package custody

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool runs another program of the kind that a checker would use.
func tool(t *testing.T, dir string, stdin []byte, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s isn't there: .ci/install-deps installs it", name)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	if out, err := tool(t, dir, nil, name, args...); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSignature: ssh-keygen takes our signatures, and we take its, of each
// kind of key; of other octets neither does.
func TestSignature(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"ed25519", "rsa", "ecdsa"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			must(t, dir, "ssh-keygen", "-q", "-t", kind, "-N", "", "-f", "key")
			key, err := LoadKey(filepath.Join(dir, "key"))
			if err != nil {
				t.Fatal(err)
			}
			record := []byte("{\"a\": 1}\n")
			sig, err := sign(key, record)
			if err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, "sig"), string(sig))
			put(t, filepath.Join(dir, "signers"), signerLine("acme", key.PublicKey()))
			verify := []string{"-Y", "verify", "-f", "signers", "-I", "acme", "-n", Namespace, "-s", "sig"}
			if out, err := tool(t, dir, record, "ssh-keygen", verify...); err != nil {
				t.Errorf("ssh-keygen refuses our signature: %v\n%s", err, out)
			}
			if _, err := tool(t, dir, []byte("{\"a\": 2}\n"), "ssh-keygen", verify...); err == nil {
				t.Error("ssh-keygen takes it for other octets")
			}
			if _, err := verifySignature(sig, []byte("{\"a\": 2}\n")); err == nil {
				t.Error("we take it for other octets")
			}
			put(t, filepath.Join(dir, "theirs"), string(record))
			must(t, dir, "ssh-keygen", "-Y", "sign", "-f", "key", "-n", Namespace, "theirs")
			theirs, err := os.ReadFile(filepath.Join(dir, "theirs.sig"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := verifySignature(theirs, record); err != nil || !bytes.Equal(got.Marshal(), key.PublicKey().Marshal()) {
				t.Errorf("we refuse ssh-keygen's signature: %v", err)
			}
			if err := os.Remove(filepath.Join(dir, "theirs.sig")); err != nil {
				t.Fatal(err)
			}
			must(t, dir, "ssh-keygen", "-Y", "sign", "-f", "key", "-n", "git", "theirs")
			if theirs, err = os.ReadFile(filepath.Join(dir, "theirs.sig")); err != nil {
				t.Fatal(err)
			}
			if _, err := verifySignature(theirs, record); err == nil {
				t.Error("a signature made for something else is taken")
			}
		})
	}
}

func TestKeysThatCannotSign(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, dir, "ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", "locked")
	put(t, filepath.Join(dir, "junk"), "junk")
	for name, want := range map[string]string{"locked": "has a passphrase", "junk": "can't be read", "nowhere": "no such file"} {
		if _, err := LoadKey(filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// authority is a time-stamping authority of the test's own: openssl behind
// HTTP.
func authority(t *testing.T) (url, ca string) {
	t.Helper()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "tsa.cnf"), `
[tsa]
default_tsa = main
[main]
serial = serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ordering = no
tsa_name = no
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[ext]
extendedKeyUsage = critical,timeStamping
basicConstraints = CA:FALSE
`)
	put(t, filepath.Join(dir, "serial"), "01\n")
	must(t, dir, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=Test CA", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem")
	must(t, dir, "openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=Test TSA", "-keyout", "tsa.key", "-out", "tsa.csr")
	must(t, dir, "openssl", "x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "7", "-days", "2", "-extfile", "tsa.cnf", "-extensions", "ext", "-out", "tsa.pem")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Content-Type") != "application/timestamp-query" {
			http.Error(w, "no query", http.StatusBadRequest)
			return
		}
		if r.URL.Path == "/down" {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		name := filepath.Join(dir, "query")
		if err := os.WriteFile(name, body, 0o600); err != nil {
			t.Error(err)
		}
		if out, err := tool(t, dir, nil, "openssl", "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-signer", "tsa.pem", "-inkey", "tsa.key", "-out", "reply"); err != nil {
			t.Errorf("openssl ts: %v\n%s", err, out)
		}
		reply, err := os.ReadFile(filepath.Join(dir, "reply"))
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/timestamp-reply")
		w.Write(reply)
	}))
	t.Cleanup(server.Close)
	return server.URL, filepath.Join(dir, "ca.pem")
}

// TestTimestamp: what an authority answers is taken, by us and by openssl; of
// other octets neither takes it.
func TestTimestamp(t *testing.T) {
	t.Parallel()
	url, ca := authority(t)
	record := []byte("{\"a\": 1}\n")
	answer, err := askStamp(t.Context(), url, record)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifyStamp(answer, record); err != nil {
		t.Error(err)
	}
	if _, err := verifyStamp(answer, []byte("{\"a\": 2}\n")); err == nil {
		t.Error("it is taken for other octets")
	}
	// Before that stands what no signature covers: which hashes are used.
	for at := 100; at < len(answer); at += 61 {
		broken := bytes.Clone(answer)
		broken[at] ^= 1
		if _, err := verifyStamp(broken, record); err == nil {
			t.Errorf("it is taken with octet %d changed", at)
		}
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "r.json"), string(record))
	put(t, filepath.Join(dir, "r.tsr"), string(answer))
	must(t, dir, "openssl", "ts", "-verify", "-data", "r.json", "-in", "r.tsr", "-CAfile", ca)
	for path, want := range map[string]string{"/down": "503"} {
		if _, err := askStamp(t.Context(), url+path, record); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestSums: sha256sum and md5sum read our manifests, whatever the names.
func TestSums(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	names := []string{"plain", "with  two spaces", "Grüße 手紙", `back\slash`, "line\nend", " leading", "*star"}
	for _, hash := range []string{"sha256", "md5"} {
		s := sums{}
		for _, name := range names {
			put(t, filepath.Join(dir, name), name)
			h := newHash(hash)
			if _, err := (&places{folder: dir}).hash(t.Context(), name, make([]byte, 3), h); err != nil {
				t.Fatal(err)
			}
			s[name] = hexOf(h)
		}
		put(t, filepath.Join(dir, "manifest."+hash), string(s.format()))
		must(t, dir, hash+"sum", "--strict", "-c", "manifest."+hash)
		back, err := readSums(bytes.NewReader(s.format()))
		if err != nil || len(back) != len(s) {
			t.Fatalf("%d of %d come back: %v", len(back), len(s), err)
		}
		for name, sum := range s {
			if back[name] != sum {
				t.Errorf("%q doesn't come back", name)
			}
		}
		for _, bad := range []string{"zz  x\n", "abcd  x\n", s["plain"] + " x\n", s["plain"] + "  plain", s["plain"] + "  plain\n" + s["plain"] + "  plain\n"} {
			if _, err := readSums(strings.NewReader(bad)); err == nil {
				t.Errorf("%q is taken", bad)
			}
		}
	}
}
