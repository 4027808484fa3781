package message

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"
)

// plainMail is a mail of about 4 KB, with the header that real ones have.
func plainMail() []byte {
	var b bytes.Buffer
	for i := range 4 {
		fmt.Fprintf(&b, "Received: from mx%d.example.com (mx%d.example.com [192.0.2.%d])\r\n\tby mail.example.org with ESMTPS id 4Bq%d\r\n\tfor <alice@example.org>; Tue, 3 Mar 2026 10:15:0%d +0100\r\n", i, i, i, i, i)
	}
	b.WriteString("From: Bob Example <bob@example.com>\r\nTo: Alice <alice@example.org>\r\nSubject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe_aus_Wien?=\r\n" +
		"Date: Tue, 3 Mar 2026 10:15:00 +0100\r\nMessage-ID: <1234.5678@example.com>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n")
	for b.Len() < 4000 {
		b.WriteString("The quick brown fox jumps over the lazy dog, and then sleeps.\r\n")
	}
	return b.Bytes()
}

// attachmentMail holds a base64 part of n octets.
func attachmentMail(n int) []byte {
	data := bytes.Repeat([]byte("\x00\x01\xfepayload of a file "), n/19+1)[:n]
	text := base64.StdEncoding.EncodeToString(data)
	var b strings.Builder
	b.WriteString("Subject: a file\r\nContent-Type: multipart/mixed; boundary=\"frontier\"\r\n\r\n--frontier\r\nContent-Type: text/plain\r\n\r\nSee the file.\r\n--frontier\r\n" +
		"Content-Type: application/pdf; name=\"a.pdf\"\r\nContent-Disposition: attachment; filename=\"a.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	for len(text) > 76 {
		b.WriteString(text[:76])
		b.WriteString("\r\n")
		text = text[76:]
	}
	b.WriteString(text + "\r\n--frontier--\r\n")
	return []byte(b.String())
}

func BenchmarkReadStructure(b *testing.B) {
	for _, bc := range []struct {
		name string
		mail []byte
	}{
		{"plain 4 KB", plainMail()},
		{"base64 1 MB", attachmentMail(1 << 20)},
		{"base64 10 MB", attachmentMail(10 << 20)},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.SetBytes(int64(len(bc.mail)))
			b.ReportAllocs()
			for b.Loop() {
				root, _, err := ReadStructure(bytes.NewReader(bc.mail))
				if err != nil || root == nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, bc := range []struct {
		name string
		mail []byte
	}{{"plain 4 KB", plainMail()}, {"base64 1 MB", attachmentMail(1 << 20)}} {
		b.Run(bc.name, func(b *testing.B) {
			b.SetBytes(int64(len(bc.mail)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Read(bytes.NewReader(bc.mail), int64(len(bc.mail))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHeader(b *testing.B) {
	mail := plainMail()
	b.SetBytes(int64(len(mail)))
	b.ReportAllocs()
	for b.Loop() {
		h := NewHeader(mail)
		_, ok := h.Date()
		if h.Subject() != "Grüße aus Wien" || h.MessageID() == "" || len(h.Addresses("From")) != 1 || !ok {
			b.Fatal("wrong")
		}
	}
}

// BenchmarkSHA256 is the floor under ReadStructure.
func BenchmarkSHA256(b *testing.B) {
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		sha256.Sum256(data)
	}
}

func BenchmarkOpen(b *testing.B) {
	mail := attachmentMail(1 << 20)
	root, _, err := Read(bytes.NewReader(mail), int64(len(mail)))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(mail)))
	b.ReportAllocs()
	for b.Loop() {
		if n, err := io.Copy(io.Discard, root.Children[1].Open()); n != 1<<20 || err != nil {
			b.Fatal(n, err)
		}
	}
}
