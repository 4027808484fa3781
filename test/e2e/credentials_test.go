package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/s3server"
)

// given is a set of credentials as the services of a cloud hand them out.
// The test server knows no session tokens: there is none.
func given() string {
	return fmt.Sprintf(`{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": %q, "SecretAccessKey": %q, "Token": "", "Expiration": %q}`,
		s3server.AccessKey, s3server.SecretKey, time.Now().Add(6*time.Hour).UTC().Format(time.RFC3339))
}

// service answers as f does until the test ends.
func service(t *testing.T, f http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL
}

// noKeys takes the test server's keys out of the environment again.
var noKeys = []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="}

// TestWhereCredentialsComeFrom has every way in which Amazon's SDK finds
// credentials and addresses reach the store, which gets few of the command's
// environment variables.
func TestWhereCredentialsComeFrom(t *testing.T) {
	t.Parallel()
	mail := fill(t, 1)
	for name, how := range map[string]func(t *testing.T, s3 *s3server.Server) (address string, env []string){
		"a profile in AWS_PROFILE, with the server's address": func(t *testing.T, s3 *s3server.Server) (string, []string) {
			config := filepath.Join(t.TempDir(), "config")
			text := fmt.Sprintf("[profile backup]\nregion = us-east-1\nendpoint_url = %s\naws_access_key_id = %s\naws_secret_access_key = %s\n", s3.URL, s3server.AccessKey, s3server.SecretKey)
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return "s3://mail/acme", append([]string{"AWS_PROFILE=backup", "AWS_CONFIG_FILE=" + config}, noKeys...)
		},
		"the server's address in AWS_ENDPOINT_URL": func(_ *testing.T, s3 *s3server.Server) (string, []string) {
			return "s3://mail/acme", []string{"AWS_ENDPOINT_URL=" + s3.URL}
		},
		"the server's address in AWS_ENDPOINT_URL_S3": func(_ *testing.T, s3 *s3server.Server) (string, []string) {
			return "s3://mail/acme?region=us-east-1", []string{"AWS_ENDPOINT_URL_S3=" + s3.URL}
		},
		"a role by web identity": func(t *testing.T, s3 *s3server.Server) (string, []string) {
			sts := service(t, func(w http.ResponseWriter, r *http.Request) {
				if r.FormValue("Action") != "AssumeRoleWithWebIdentity" || r.FormValue("WebIdentityToken") != "of the pod" || r.FormValue("RoleArn") != "arn:aws:iam::1:role/mail" {
					http.Error(w, "no", http.StatusBadRequest)
					return
				}
				w.Header().Set("Content-Type", "text/xml")
				fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken></SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
					s3server.AccessKey, s3server.SecretKey, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
			})
			token := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(token, []byte("of the pod"), 0o600); err != nil {
				t.Fatal(err)
			}
			return s3.Address("mail/acme"), append([]string{"AWS_ROLE_ARN=arn:aws:iam::1:role/mail", "AWS_WEB_IDENTITY_TOKEN_FILE=" + token, "AWS_REGION=us-east-1", "AWS_ENDPOINT_URL_STS=" + sts}, noKeys...)
		},
		"the role of a container": func(t *testing.T, s3 *s3server.Server) (string, []string) {
			agent := service(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, given()) })
			return s3.Address("mail/acme"), append([]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + agent}, noKeys...)
		},
		"the role of a machine": func(t *testing.T, s3 *s3server.Server) (string, []string) {
			metadata := service(t, func(w http.ResponseWriter, r *http.Request) {
				const roles = "/latest/meta-data/iam/security-credentials/"
				switch {
				case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
					w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
					fmt.Fprint(w, "session")
				case r.URL.Path == roles:
					fmt.Fprint(w, "mail")
				case strings.HasPrefix(r.URL.Path, roles):
					fmt.Fprint(w, given())
				default:
					http.NotFound(w, r)
				}
			})
			return s3.Address("mail/acme"), append([]string{"AWS_EC2_METADATA_DISABLED=false", "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + metadata}, noKeys...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s3 := s3server.Start(t, "mail")
			address, env := how(t, s3)
			j := newBucketJob(t, s3, oneSink(mail.IMAP, address), env...)
			j.run(0, "run")
			if n := len(outputOf(t, filepath.Join(s3.Folder, "mail", "acme"))); n != 1 {
				t.Errorf("the bucket has %d objects, want 1", n)
			}
		})
	}
}

// TestCredentialsThatExpire has the server call credentials expired in
// mid-run, before they said that they would be: new ones are asked for.
func TestCredentialsThatExpire(t *testing.T) {
	t.Parallel()
	mail := fill(t, 12)
	s3 := s3server.Start(t, "mail")
	want := oneReference(t, mail.IMAP)
	var asked, puts, over atomic.Int64
	agent := service(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, given())
	})
	j := newBucketJob(t, s3, oneSink(mail.IMAP, s3.Address("mail/acme/eml")), append([]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + agent}, noKeys...)...)
	s3.Fail(func(q *http.Request) s3server.Mishap {
		if q.Method == http.MethodPut && puts.Add(1) == 5 {
			over.Store(1)
		}
		if over.Load() == 1 && asked.Load() == 1 {
			return s3server.Expired
		}
		return s3server.None
	})
	j.run(0, "run")
	if asked.Load() < 2 {
		t.Errorf("credentials were asked for %d times, want 2 at least", asked.Load())
	}
	sameOutput(t, "the bucket", outputOf(t, filepath.Join(s3.Folder, "mail", "acme")), want)
}

// TestBucketBehindAnUnknownAuthority has a server whose certificate only
// AWS_CA_BUNDLE makes trusted.
func TestBucketBehindAnUnknownAuthority(t *testing.T) {
	t.Parallel()
	mail := fill(t, 1)
	s3 := s3server.StartTLS(t, "mail")
	address := "s3://mail/acme?region=us-east-1&patience=1s&endpoint=" + url.QueryEscape(s3.URL)
	j := newBucketJob(t, s3, oneSink(mail.IMAP, address))
	o := j.start("run").wait()
	if o.code == 0 {
		t.Error("a certificate that nobody signed was trusted")
	}
	oneClearError(t, o, "AWS_CA_BUNDLE", "certificate")
	j.env = append(j.env, "AWS_CA_BUNDLE="+s3.CA)
	j.run(0, "run")
	if n := len(outputOf(t, filepath.Join(s3.Folder, "mail", "acme"))); n != 1 {
		t.Errorf("the bucket has %d objects, want 1", n)
	}
}

// TestBucketExample runs examples/bucket with nothing but its variables, and
// has the server that it offers be started as the one of these tests is.
func TestBucketExample(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../examples/bucket/pipeline.yaml")
	if err != nil {
		t.Fatal(err)
	}
	mail := fill(t, 3)
	s3 := s3server.Start(t, "mail")
	j := newBucketJob(t, s3, string(b), "MAIL_SERVER="+mail.IMAP, "MAIL_SECURITY=none", "MAIL_USER=alice", "MAIL_PASSWORD="+dovecot.Password,
		"BUCKET=mail", "AWS_REGION=us-east-1", "AWS_ENDPOINT_URL="+s3.URL)
	j.run(0, "run")
	if n := len(outputOf(t, filepath.Join(s3.Folder, "mail"))); n != 4 {
		t.Errorf("the bucket has %d objects, want 3 messages and an index", n)
	}
	s := strictly[composeFile](t, "../../examples/bucket/compose.yaml")[0].Services["s3"]
	if want := "--port :7070 --access someone --secret some-secret posix /data"; strings.Join(s.Command, " ") != want || !s.ReadOnly || s.Ports[0] != "127.0.0.1:7070:7070" {
		t.Errorf("%+v", s)
	}
}
