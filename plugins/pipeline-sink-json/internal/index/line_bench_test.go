package index

import (
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
)

// usual is a header as most mail has it.
const usual = "Return-Path: <priya.patel@example.org>\r\n" +
	"Delivered-To: laura.rossi@corp.example\r\n" +
	"Received: from mx3.shop.example (mx0.shop.example [192.0.2.153])\r\n\tby in4.example.com (Postfix) with ESMTPS id 026588CD0C\r\n\tfor <laura.rossi@corp.example>; Mon, 2 Jan 2023 08:01:37 +0100\r\n" +
	"From: Priya Patel <priya.patel@example.org>\r\n" +
	"To: \"Rossi, Laura\" <laura.rossi@corp.example>\r\n" +
	"Cc: =?utf-8?q?Sven_=C3=85kesson?= <sven.kesson@example.org>,\r\n\tLaura Rossi <laura.rossi@shop.example>\r\n" +
	"Subject: archive said other use that to the an to\r\n" +
	"Date: Mon, 2 Jan 2023 08:01:37 +0100\r\n" +
	"Message-ID: <a18c4284346437deecd3.1@example.com>\r\n" +
	"References: <77aa64a1@example.com> <b19c4284346437deecd3.2@example.com>\r\n" +
	"List-Id: <news.corp.example>\r\n" +
	"List-Unsubscribe: <https://lists.example.org/u/53a8c61886c7286df4795eafeacb74da>\r\n" +
	"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"

// BenchmarkLine is the line of a message of which a listing told all.
func BenchmarkLine(b *testing.B) {
	m := &message.Message{Summary: message.Summary{
		ID:   message.ID{Source: "alice", Mailbox: "Archive/2024", UIDValidity: 1700000000, UID: 4711},
		Have: message.NeedSize | message.NeedInternalDate | message.NeedFlags | message.NeedHeaders, Size: 4242,
		InternalDate: time.Date(2023, 1, 2, 8, 1, 38, 0, time.UTC), Flags: []string{`\Seen`}, SequenceNumber: 99,
	}, Record: &message.Record{Octets: -1}}
	e := newEncoder(false)
	raw := []byte(usual)
	b.ReportAllocs()
	for b.Loop() {
		m.Header = message.NewHeader(raw)
		e.encode(m)
	}
}
