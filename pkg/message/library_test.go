package message

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gomessage "github.com/emersion/go-message"
)

// TestAgreesWithLibrary compares the decoded octets of all leaves that are no
// text (those, go-message turns into UTF-8) with go-message's, over the mails
// that it reads to the end without an error.
func TestAgreesWithLibrary(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(corpus(t), "eml", "*.eml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no mails: %v", err)
	}
	compared, leaves := 0, 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		theirs, ok := librarySums(raw)
		if !ok {
			continue
		}
		root, problems, err := ReadStructure(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		var ours []string
		root.Walk(func(p *Part) bool {
			if strings.HasPrefix(p.MediaType, "multipart/") {
				return true
			}
			if !strings.HasPrefix(p.MediaType, "text/") {
				ours = append(ours, p.SHA256)
			}
			return false
		})
		compared++
		leaves += len(theirs)
		if _, listed := libraryErrs[filepath.Base(file)]; listed == slices.Equal(ours, theirs) {
			t.Errorf("%s: listed is %v, and agrees is too", filepath.Base(file), listed)
			t.Errorf("%s: ours %d leaves, theirs %d; sums differ; problems %q", filepath.Base(file), len(ours), len(theirs), problems)
		}
	}
	t.Logf("%d of %d mails compared, %d leaves", compared, len(files), leaves)
}

// libraryErrs are the mails of which ours and the library's leaves differ, and
// ours are right, with the reason.
var libraryErrs = map[string]string{
	"Mail-Box-mbox.cpy-0023.eml":                                  "a media type without a slash is text/plain (RFC 2045 §5.2): the library keeps it",
	"Mail-Box-mbox.cpy-0024.eml":                                  "a media type without a slash is text/plain (RFC 2045 §5.2): the library keeps it",
	"Mail-Box-mbox.cpy-0038.eml":                                  "a media type without a slash is text/plain (RFC 2045 §5.2): the library keeps it",
	"cpython-msg_02.eml":                                          "a multipart/digest: the library doesn't make its parts messages",
	"cpython-msg_14.eml":                                          "a media type without a slash is text/plain (RFC 2045 §5.2): the library keeps it",
	"cpython-msg_30.eml":                                          "a multipart/digest: the library doesn't make its parts messages",
	"hypermail-mboxes-t5.eml":                                     "a media type without a slash is text/plain (RFC 2045 §5.2): the library keeps it",
	"hypermail-mboxes-y2k-0004.eml":                               "a media type without a slash is text/plain (RFC 2045 §5.2): the library keeps it",
	"james-mime4j-multi-digest.eml":                               "a multipart/digest: the library doesn't make its parts messages",
	"james-mime4j-multipartdigestnestedemptyparts.eml":            "a multipart/digest: the library doesn't make its parts messages",
	"mailcore2-jwz-135.eml":                                       "a media type without a slash is text/plain (RFC 2045 §5.2): the library keeps it",
	"mailcore2-jwz-40.eml":                                        "a multipart/digest: the library doesn't make its parts messages",
	"purebred-email-multipart-digest.eml":                         "a multipart/digest: the library doesn't make its parts messages",
	"releases-comm-central-bare-text-type.eml":                    "a media type without a slash is text/plain (RFC 2045 §5.2): the library keeps it",
	"releases-comm-central-test-alt-rel-text.eml":                 "a media type without a slash is text/plain (RFC 2045 §5.2): the library keeps it",
	"releases-comm-central-untyped_text_with_cte_and_charset.eml": "a media type without a slash is text/plain (RFC 2045 §5.2): the library keeps it",
	"set-of-emails-lhost-amazonworkmail-01.eml":                   "lines that end in CR: the library finds no header",
	"set-of-emails-lhost-googleworkspace-01.eml":                  "lines that end in CR: the library finds no header",
	"set-of-emails-lhost-messagingserver-01.eml":                  "lines that end in CR: the library finds no header",
	"set-of-emails-lhost-sendmail-01-12622f.eml":                  "lines that end in CR: the library finds no header",
	"set-of-emails-lhost-x3-01.eml":                               "lines that end in CR: the library finds no header",
	"set-of-emails-rhost-apple-01.eml":                            "lines that end in CR: the library finds no header",
	"set-of-emails-rhost-nttdocomo-01-24b43b.eml":                 "lines that end in CR: the library finds no header",
	"spamassassin-mime8.eml":                                      "a media type without a slash is text/plain (RFC 2045 §5.2): the library keeps it",
}

// librarySums returns what go-message makes of the leaves; false where it fails.
func librarySums(raw []byte) (sums []string, ok bool) {
	e, err := gomessage.Read(bytes.NewReader(raw))
	if err != nil {
		return nil, false
	}
	ok = true
	err = e.Walk(func(_ []int, e *gomessage.Entity, err error) error {
		if err != nil {
			return err
		}
		typ, _, err := e.Header.ContentType()
		if err != nil {
			return err
		}
		if strings.HasPrefix(typ, "multipart/") || strings.HasPrefix(typ, "text/") {
			return nil
		}
		h := sha256.New()
		if _, err := io.Copy(h, e.Body); err != nil {
			return err
		}
		sums = append(sums, hex.EncodeToString(h.Sum(nil)))
		return nil
	})
	return sums, ok && err == nil
}
