package expression

import (
	"fmt"
	"strings"
)

// Error is one thing that is wrong with an expression.
type Error struct {
	Line, Column int    // within the expression, from 1; Column counts characters
	Text         string // what is wrong
	Nearest      string // the word that was probably meant; may be empty
}

// Error returns what is wrong, with the nearest right word.
func (e *Error) Error() string {
	s := e.Text
	if e.Nearest != "" {
		s += fmt.Sprintf("; did you mean %q?", e.Nearest)
	}
	return s
}

// position turns an offset in characters into line and column.
func position(text string, offset int) (line, column int) {
	line, column = 1, 1
	for i, r := range []rune(text) {
		if i == offset {
			break
		}
		if r == '\n' {
			line, column = line+1, 1
		} else {
			column++
		}
	}
	return line, column
}

// MissingError says that kept values can't tell: the field wasn't among them.
type MissingError struct{ Field string }

// Error names the field.
func (e *MissingError) Error() string {
	return fmt.Sprintf("the value of %s wasn't kept", e.Field)
}

// plain turns the library's wording into ours.
func plain(text string) string {
	text = strings.TrimSpace(text)
	for _, r := range []struct{ from, to string }{
		{"time.Time", "a time"}, {"time.Duration", "a duration"}, {"[]string", "a list"}, {"[]expression.Attachment", "the attachments"},
		{"expression.Attachment", "an attachment"}, {"unexpected token EOF", "it ends too early"}, {"map[string]interface {}", "a mapping"},
	} {
		text = strings.ReplaceAll(text, r.from, r.to)
	}
	return text
}
