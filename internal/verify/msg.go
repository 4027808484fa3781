package verify

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mailhaul/pipeline/internal/msgfile"
	"github.com/mailhaul/pipeline/internal/output"
	"github.com/mailhaul/pipeline/pkg/message"
)

// openMSGs opens the .msg files that nothing was said of, and holds each
// against the EML of its message, where a sink has one: that both are what was
// written says nothing of whether the one was made well of the other.
func (v *verifier) openMSGs(ctx context.Context) error {
	var mails *kept
	for _, k := range v.sinks {
		if !k.plan.Prepared.Record && !k.gone && k.exact && mails == nil {
			mails = k
		}
	}
	for _, k := range v.sinks {
		if k.plan.Prepared.Record || k.gone || !k.msg || k.result.Messages == 0 {
			continue
		}
		var opened atomic.Int64
		items := make(chan int32, 64)
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancelCause(ctx)
		k.fail = cancel
		for range k.files.AtOnce() {
			wg.Go(func() {
				for n := range items {
					if ctx.Err() == nil {
						v.openMSG(ctx, k, mails, n)
						opened.Add(1)
					}
				}
			})
		}
		for n := range k.rows {
			if r := &k.rows[n]; r.written && r.seen && !r.bad && v.sampled(int32(n)) {
				items <- int32(n)
			}
		}
		close(items)
		wg.Wait()
		k.result.Opened = opened.Load()
		err := context.Cause(ctx)
		cancel(nil)
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) openMSG(ctx context.Context, k, mails *kept, n int32) {
	name := v.pathOf(ctx, k.plan.Name, n)
	at := Finding{Kind: Changed, Place: Output, Sink: k.plan.Name, Path: name}
	f, err := output.OpenWhole(ctx, k.files, name)
	if err != nil {
		v.unreadable(ctx, k, n, at, err)
		return
	}
	defer f.Close()
	got, err := msgfile.Read(f)
	if err != nil {
		v.found(n, at, "it can't be opened as a .msg: %v", err)
		return
	}
	if mails == nil || int(n) >= len(mails.rows) || !mails.rows[n].seen || mails.rows[n].bad {
		return
	}
	mail, err := output.OpenWhole(ctx, mails.files, v.pathOf(ctx, mails.plan.Name, n))
	if err != nil {
		return // said where it was read
	}
	defer mail.Close()
	if what := against(got, mail); what != "" {
		v.found(n, at, "it isn't what its EML in %s is: %s", mails.plan.Name, what)
	}
}

// against says what of a .msg isn't in the mail; empty when all is.
func against(got *msgfile.File, mail *output.Whole) string {
	root, problems, err := message.Read(mail, mail.Size)
	if err != nil || len(problems) > 0 {
		return "" // how a broken mail is read is the converter's to say
	}
	h, err := root.Header()
	if err != nil {
		return ""
	}
	if want := plain(h.Subject()); want != plain(got.Subject) {
		return fmt.Sprintf("its subject is %q", got.Subject)
	}
	// What follows the id in its field stands in the .msg too.
	if want := strings.Trim(h.MessageID(), "<> "); isID(want) && !strings.Contains(got.MessageID, want) {
		return fmt.Sprintf("its Message-ID is %q", got.MessageID)
	}
	if root.Part.MediaType == "multipart/signed" || strings.Contains(root.Part.MediaType, "pkcs7") {
		return "" // the signed entity is kept as one attachment
	}
	has := map[string]int{}
	for _, a := range got.Attachments {
		has[a.SHA256]++
	}
	what := ""
	eachFile(root, func(e *message.Entity) {
		if what != "" {
			return
		}
		sum, err := sumOf(e.Open())
		if err != nil {
			return
		}
		if has[sum] == 0 {
			what = fmt.Sprintf("the attachment %q isn't there, or not with these octets", e.Part.Name)
		}
		has[sum]--
	})
	return what
}

// isID reports whether a Message-ID is one that every reader reads alike. How
// a broken one is read is the converter's to say.
func isID(s string) bool {
	left, right, ok := strings.Cut(s, "@")
	return ok && left != "" && right != "" && !strings.Contains(s, "=?") &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`<>"()[]\,;`, r) })
}

// eachFile calls f for the parts that every converter keeps as files: those of
// disposition attachment with a name, that are no mail of any kind.
func eachFile(e *message.Entity, f func(*message.Entity)) {
	p := e.Part
	if strings.HasPrefix(p.MediaType, "message/") || strings.Contains(p.MediaType, "tnef") || strings.EqualFold(p.Name, "winmail.dat") {
		return
	}
	if len(e.Children) == 0 && p.Disposition == "attachment" && p.Name != "" && !strings.HasPrefix(p.MediaType, "multipart/") {
		f(e)
	}
	for _, c := range e.Children {
		eachFile(c, f)
	}
}

func sumOf(r io.Reader) (string, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}

// plain leaves out what no property can hold.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '�' {
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}
