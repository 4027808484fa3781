package source_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

func TestNamed(t *testing.T) {
	t.Parallel()
	var got []string
	for m, err := range source.Named("INBOX", "Sent", "Trash") {
		if err != nil || !m.Selectable || m.State.Messages != -1 {
			t.Fatalf("%+v, %v", m, err)
		}
		if got = append(got, m.Name); len(got) == 2 {
			break
		}
	}
	if !slices.Equal(got, []string{"INBOX", "Sent"}) {
		t.Errorf("got %v", got)
	}
}

// closing counts what is open.
type closing struct {
	io.Reader
	open *int
}

func (c closing) Close() error { *c.open--; return nil }

func TestEach(t *testing.T) {
	t.Parallel()
	open := 0
	get := func(id message.ID) (io.ReadCloser, int64, error) {
		if id.UID == 3 {
			return nil, 0, fault.New(fault.Gone, "there is no 3")
		}
		open++
		return closing{strings.NewReader("body"), &open}, 4, nil
	}
	req := source.FetchRequest{IDs: slices.Values([][]message.ID{ids(1, 2), ids(3, 4)})}
	var got []uint32
	for f, err := range req.Each(t.Context(), get) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, f.ID.UID); f.ID.UID == 3 {
			if !fault.Is(f.Err, fault.Gone) || f.Message != nil {
				t.Errorf("%+v", f)
			}
			continue
		}
		b, err := io.ReadAll(f.Message.Body)
		if err != nil || string(b) != "body" || f.Message.Body.Size() != 4 || open != 1 {
			t.Errorf("%q, %v, %d open", b, err, open)
		}
	}
	if !slices.Equal(got, []uint32{1, 2, 3, 4}) || open != 0 {
		t.Errorf("answered %v, %d left open", got, open)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range req.Each(ctx, get) {
		last = err
		cancel()
	}
	if !errors.Is(last, context.Canceled) || open != 0 {
		t.Errorf("cancelled: %v, %d left open", last, open)
	}
	for range req.Each(t.Context(), get) {
		break
	}
	if open != 0 {
		t.Error("broken off, a body is left open")
	}
}
