package index

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"unicode"
)

// byReflection is a line as encoding/json writes it.
func byReflection(t testing.TB, l *line) []byte {
	t.Helper()
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// fill puts values that are made of octets into every field of v, all of them:
// one that append forgets would differ.
func fill(v reflect.Value, next func() string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(next())
	case reflect.Bool:
		v.SetBool(len(next())%2 == 1)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(len(next())) - 1)
	case reflect.Uint32:
		v.SetUint(uint64(len(next())))
	case reflect.Pointer:
		if next() == "" {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), next)
	case reflect.Slice:
		n := len(next()) % 4
		if n == 3 {
			return // nil
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(v.Index(i), next)
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{next(): next(), next(): next()}))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), next)
		}
	default:
		panic("append writes no " + v.Kind().String())
	}
}

// FuzzAppend compares lines with what encoding/json makes of them, whatever
// stands in their fields.
func FuzzAppend(f *testing.F) {
	for _, seed := range []string{
		"", "a", "a\x00\"\\\b\f\n\r\t\x1f\x7f <&>", "\u2027\u2028\u2029\u202a\ufffd\U0001f600", "\xff\xe2\x80\xed\xa0\x80x", "Grüße an alle, und noch mehr Text, der in alle Felder kommt.",
	} {
		f.Add([]byte(seed), uint8(3))
		f.Add([]byte(seed), uint8(0))
	}
	f.Fuzz(func(t *testing.T, octets []byte, size uint8) {
		at := 0
		next := func() string {
			if len(octets) == 0 {
				return ""
			}
			n := (at + int(size)) % 12
			at = (at + n + 1) % len(octets)
			return string(octets[at:min(at+n, len(octets))])
		}
		var l line
		fill(reflect.ValueOf(&l).Elem(), next)
		if got, want := l.append(nil), byReflection(t, &l); !bytes.Equal(got, want) {
			t.Errorf("got  %swant %s", got, want)
		}
	})
}

// TestAppendString: every character, and every octet alone, is written as
// encoding/json writes it.
func TestAppendString(t *testing.T) {
	t.Parallel()
	same := func(s string) {
		l := line{ID: s}
		if got, want := l.append(nil), byReflection(t, &l); !bytes.Equal(got, want) {
			t.Errorf("of %q: got %swant %s", s, got, want)
		}
	}
	for c := range 256 {
		same("x" + string([]byte{byte(c)}) + "y")
	}
	for r := rune(0); r < unicode.MaxRune; r += 1 + r/4096 {
		same(string(r) + "x")
	}
	same("\u2028\u2029")
}
