// Package spec turns a plugin's config struct into a JSON Schema, decodes
// configs strictly into it, and renders its reference page. The struct is the
// only place where a key is described:
//
//	type Config struct {
//		Address  string        `json:"address" required:"true" doc:"host:port of the server" example:"imap.example.com:993"`
//		Security string        `json:"security" enum:"tls,starttls,none" default:"tls" doc:"how the connection is secured"`
//		Password spec.Secret   `json:"password" doc:"password of the account"`
//		Timeout  time.Duration `json:"timeout" default:"60s" doc:"how long the server may be silent"`
//		Lanes    int           `json:"connections" default:"4" min:"1" max:"64" doc:"connections at once"`
//	}
//
// Tags: json (the key, a must), doc, required, default, enum (comma-separated),
// example (several separated by |), min and max (numbers, durations, sizes),
// pattern (a regular expression for the whole string).
// Types: bool, integers, floats, string, slices, maps with string keys, nested
// and embedded structs, pointers (nil when the key is left out),
// time.Duration, Bytes, Rate, Secret, json.RawMessage (any value), types with
// UnmarshalText, and Described ones.
//
// A config struct, at any level, may have a method Validate() error for what
// tags can't say; a fault.Config with a Key relative to the struct points at
// the key.
package spec

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Decode reads the JSON object config into the struct that into points to,
// with the defaults of its tags. It refuses what the schema doesn't allow:
// unknown and doubled keys, wrong types, missing keys, values out of range. It
// finds all errors, joined with errors.Join; each is a *fault.Error of class
// Config whose Key is the path of the key within the config, as in
// "tls.ca_file" or "auth[2].name", and whose text begins with that path.
//
// secrets gives a secret's value for its reference, each time that
// Secret.Value is called; it may be nil when the config has no references.
func Decode(config []byte, into any, secrets func(ctx context.Context, ref string) (string, error)) error {
	return DecodeWith(config, into, Vault{Value: secrets})
}

// DecodeWith is Decode with secrets that can be stored as well.
func DecodeWith(config []byte, into any, secrets Vault) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return fault.New(fault.Bug, "decode a config into %T: expected a pointer to a struct", into)
	}
	t, err := parseTree(config)
	if err != nil {
		return fault.Wrap(fault.Config, err, "read the config")
	}
	d := &decoder{secrets: secrets, types: map[reflect.Type][]field{}, patterns: map[string]*regexp.Regexp{}}
	d.value(t, v.Elem(), "", &field{typ: v.Elem().Type()})
	return errors.Join(d.errs...)
}

type decoder struct {
	secrets  Vault
	errs     []error
	types    map[reflect.Type][]field  // a list of 3,000 sources has one type
	patterns map[string]*regexp.Regexp // as they stand in the tags
}

func (d *decoder) fields(t reflect.Type) ([]field, error) {
	if fs, ok := d.types[t]; ok {
		return fs, nil
	}
	fs, err := fields(t)
	d.types[t] = fs
	return fs, err
}

func (d *decoder) pattern(tag string) (*regexp.Regexp, error) {
	if re := d.patterns[tag]; re != nil {
		return re, nil
	}
	re, err := regexp.Compile("^(?:" + tag + ")$")
	d.patterns[tag] = re
	return re, err
}

func (d *decoder) fail(key, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if key != "" {
		text = key + ": " + text
	}
	d.errs = append(d.errs, &fault.Error{Class: fault.Config, Text: text, Key: key})
}

func (d *decoder) value(t *tree, v reflect.Value, key string, f *field) {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		d.value(t, v.Elem(), key, f)
		return
	}
	if t.kind == "null" && v.Type() != rawType {
		d.fail(key, "nothing stands there: expected %s; leave the key out for its default", expected(v.Type()))
		return
	}
	switch v.Type() {
	case durationType:
		text(d, t, v, key, f, parseDuration)
		return
	case rateType:
		text(d, t, v, key, f, ParseRate)
		return
	case bytesType:
		if t.kind == "number" {
			t = &tree{kind: "string", text: t.text}
		}
		text(d, t, v, key, f, ParseBytes)
		return
	case secretType:
		d.secret(t, v, key)
		return
	case rawType:
		v.SetBytes(t.json())
		return
	}
	if u, ok := v.Addr().Interface().(Described); ok {
		if err := u.UnmarshalJSON(t.json()); err != nil {
			d.join(key, err)
			return
		}
		d.validate(v, key)
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if t.kind != "string" {
			d.wrong(t, v, key)
		} else if err := u.UnmarshalText([]byte(t.text)); err != nil {
			d.join(key, err)
		}
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		if t.kind != "boolean" {
			d.wrong(t, v, key)
			return
		}
		v.SetBool(t.text == "true")
	case reflect.String:
		if t.kind != "string" {
			d.wrong(t, v, key)
			return
		}
		if len(f.enum) > 0 && !slices.Contains(f.enum, t.text) {
			d.fail(key, "%q isn't allowed: expected one of %s%s", t.text, strings.Join(f.enum, ", "), DidYouMean(t.text, f.enum))
			return
		}
		if f.pattern != "" {
			re, err := d.pattern(f.pattern)
			if err != nil {
				d.errs = append(d.errs, fault.New(fault.Bug, "the pattern tag of %s: %w", key, err))
			} else if !re.MatchString(t.text) {
				d.fail(key, "%q isn't allowed: expected what matches %s", t.text, f.pattern)
				return
			}
		}
		v.SetString(t.text)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(t.text, 10, 64)
		if t.kind != "number" || err != nil || v.OverflowInt(n) {
			d.wrong(t, v, key)
			return
		}
		if d.inRange(t.text, t.text, key, f) {
			v.SetInt(n)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(t.text, 10, 64)
		if t.kind != "number" || err != nil || v.OverflowUint(n) {
			d.wrong(t, v, key)
			return
		}
		if d.inRange(t.text, t.text, key, f) {
			v.SetUint(n)
		}
	case reflect.Float32, reflect.Float64:
		n, err := strconv.ParseFloat(t.text, 64)
		if t.kind != "number" || err != nil || v.OverflowFloat(n) {
			d.wrong(t, v, key)
			return
		}
		if d.inRange(t.text, t.text, key, f) {
			v.SetFloat(n)
		}
	case reflect.Slice:
		d.list(t, v, key, f)
	case reflect.Map:
		d.mapping(t, v, key, f)
	case reflect.Struct:
		d.structure(t, v, key)
	default:
		d.errs = append(d.errs, fault.New(fault.Bug, "%s: a config can't hold a %s", key, v.Type()).WithKey(key))
	}
}

func (d *decoder) wrong(t *tree, v reflect.Value, key string) {
	d.fail(key, "expected %s, found %s", expected(v.Type()), t.found())
}

// text decodes what is written as a string and parsed.
func text[T any](d *decoder, t *tree, v reflect.Value, key string, f *field, parse func(string) (T, error)) {
	if t.kind != "string" {
		d.wrong(t, v, key)
		return
	}
	got, err := parse(t.text)
	if err != nil {
		d.fail(key, "%v", err)
		return
	}
	rv := reflect.ValueOf(got)
	if rv.Kind() == reflect.Int64 && (f.min != "" || f.max != "") {
		for _, bound := range []struct {
			text string
			low  bool
		}{{f.min, true}, {f.max, false}} {
			if bound.text == "" {
				continue
			}
			b, err := parse(bound.text)
			if err != nil {
				d.errs = append(d.errs, fault.New(fault.Bug, "the bound of %s: %w", key, err).WithKey(key))
				return
			}
			if limit := reflect.ValueOf(b).Int(); bound.low && rv.Int() < limit || !bound.low && rv.Int() > limit {
				d.fail(key, "%s is out of range: expected %s", t.text, rangeText(f))
				return
			}
		}
	}
	v.Set(rv)
}

// inRange compares exactly: a float64 would round a large integer.
func (d *decoder) inRange(number, shown, key string, f *field) bool {
	n, ok := new(big.Rat).SetString(number)
	if !ok {
		return true
	}
	for i, bound := range []string{f.min, f.max} {
		b, ok := new(big.Rat).SetString(bound)
		if !ok {
			continue
		}
		if c := n.Cmp(b); i == 0 && c < 0 || i == 1 && c > 0 {
			d.fail(key, "%s is out of range: expected %s", shown, rangeText(f))
			return false
		}
	}
	return true
}

func rangeText(f *field) string {
	switch {
	case f.min != "" && f.max != "":
		return f.min + " to " + f.max
	case f.min != "":
		return f.min + " or more"
	default:
		return "at most " + f.max
	}
}

func (d *decoder) secret(t *tree, v reflect.Value, key string) {
	switch {
	case t.kind == "string":
		v.Set(reflect.ValueOf(Plain(t.text)))
	case t.kind == "object" && len(t.names) == 1 && t.members[secretRef] != nil && t.members[secretRef].kind == "string":
		if d.secrets.Value == nil {
			d.fail(key, "there is nobody to ask for the secret")
			return
		}
		v.Set(reflect.ValueOf(Secret{ref: t.members[secretRef].text, set: true, vault: d.secrets}))
	default:
		d.wrong(t, v, key)
	}
}

func (d *decoder) list(t *tree, v reflect.Value, key string, f *field) {
	if t.kind != "array" {
		d.wrong(t, v, key)
		return
	}
	item := *f
	item.typ = v.Type().Elem()
	out := reflect.MakeSlice(v.Type(), len(t.items), len(t.items))
	for i, it := range t.items {
		d.value(it, out.Index(i), fmt.Sprintf("%s[%d]", key, i), &item)
	}
	v.Set(out)
}

func (d *decoder) mapping(t *tree, v reflect.Value, key string, f *field) {
	if v.Type().Key().Kind() != reflect.String {
		d.errs = append(d.errs, fault.New(fault.Bug, "%s: a config can't hold a %s", key, v.Type()).WithKey(key))
		return
	}
	if t.kind != "object" {
		d.wrong(t, v, key)
		return
	}
	item := *f
	item.typ = v.Type().Elem()
	out := reflect.MakeMapWithSize(v.Type(), len(t.names))
	for _, name := range t.names {
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(t.members[name], e, join(key, name), &item)
		out.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), e)
	}
	v.Set(out)
}

func (d *decoder) structure(t *tree, v reflect.Value, key string) {
	if t.kind != "object" {
		d.wrong(t, v, key)
		return
	}
	fs, err := d.fields(v.Type())
	if err != nil {
		d.errs = append(d.errs, fault.New(fault.Bug, "%w", err))
		return
	}
	before := len(d.errs)
	var names []string
	for i := range fs {
		names = append(names, fs[i].name)
	}
	for _, name := range t.names {
		if !slices.Contains(names, name) {
			d.fail(join(key, name), "unknown key%s", DidYouMean(name, names))
		}
	}
	for i := range fs {
		f := &fs[i]
		at, member := join(key, f.name), t.members[f.name]
		fv := v.FieldByIndex(f.index)
		switch {
		case member != nil:
			if f.hasSet && fv.Kind() != reflect.Pointer {
				d.preset(fv, at, f) // what a half-filled value leaves open
			}
			d.value(member, fv, at, f)
		case f.required:
			d.fail(at, "missing: expected %s", expected(f.typ))
		case f.hasSet:
			d.preset(fv, at, f)
		case fv.Kind() == reflect.Struct && fv.Type() != secretType && fv.Type() != rateType && !fv.Addr().Type().Implements(describedType) && !fv.Addr().Type().Implements(textType):
			d.absent(fv, at)
		}
	}
	if len(d.errs) == before {
		d.validate(v, key)
	}
}

// absent fills a struct whose key was left out: its defaults hold, what is
// required inside it doesn't, as JSON Schema has it.
func (d *decoder) absent(v reflect.Value, key string) {
	fs, err := d.fields(v.Type())
	if err != nil {
		d.errs = append(d.errs, fault.New(fault.Bug, "%w", err))
		return
	}
	for i := range fs {
		f := &fs[i]
		fv, at := v.FieldByIndex(f.index), join(key, f.name)
		if f.hasSet {
			d.preset(fv, at, f)
		} else if fv.Kind() == reflect.Struct && fv.Type() != secretType && fv.Type() != rateType && !fv.Addr().Type().Implements(describedType) && !fv.Addr().Type().Implements(textType) {
			d.absent(fv, at)
		}
	}
}

func (d *decoder) preset(v reflect.Value, key string, f *field) {
	raw, err := tagJSON(f.typ, f.preset)
	if err == nil {
		var t *tree
		if t, err = parseTree(raw); err == nil {
			d.value(t, v, key, f)
			return
		}
	}
	d.errs = append(d.errs, fault.New(fault.Bug, "the default of %s: %w", key, err).WithKey(key))
}

func (d *decoder) validate(v reflect.Value, key string) {
	checked, ok := v.Addr().Interface().(interface{ Validate() error })
	if !ok {
		return
	}
	if err := checked.Validate(); err != nil {
		d.join(key, err)
	}
}

// join adds err's parts under key.
func (d *decoder) join(key string, err error) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			d.join(key, e)
		}
		return
	}
	e := fault.As(err)
	if e == nil || e.Class != fault.Config {
		d.fail(key, "%v", err)
		return
	}
	inner := *e
	text := strings.TrimPrefix(inner.Text, inner.Key+": ")
	if inner.Key = join(key, e.Key); inner.Key != "" {
		text = inner.Key + ": " + text
	}
	inner.Text = text
	d.errs = append(d.errs, &inner)
}

// join returns the path of key below base.
func join(base, key string) string {
	switch {
	case base == "":
		return key
	case key == "" || key[0] == '[':
		return base + key
	default:
		return base + "." + key
	}
}

// DidYouMean returns `; did you mean "x"?` for the nearest candidate, or
// nothing.
func DidYouMean(word string, candidates []string) string {
	if n := Nearest(word, candidates); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}

// expected says in words what a value of type t looks like.
func expected(t reflect.Type) string {
	switch t {
	case durationType:
		return "a duration as in 30s, 5m or 1h30m"
	case bytesType:
		return "a size as in 25MB, 1.5GiB or 4096"
	case rateType:
		return "a rate as in 50/s or 5MB/s"
	case secretType:
		return "a string"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return expected(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number that isn't negative"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		if t == rawType {
			return "a value"
		}
		return "a list"
	case reflect.Map:
		return "a mapping"
	case reflect.Struct:
		if isText(t) {
			return "a string"
		}
		return "a mapping"
	default:
		return "a value"
	}
}

// jsonNumber tells whether a tag bound is a plain number.
func jsonNumber(s string) bool {
	var n json.Number
	return json.Unmarshal([]byte(s), &n) == nil
}
