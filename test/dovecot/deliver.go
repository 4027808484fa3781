package dovecot

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Deliver puts a message into a mailbox, which is made when it is new, with
// the date as its internal date. Names are UTF-8 with "/" between levels
// whatever the server's separator is. It writes the Maildir directly: thousands
// a second. flags are system flags (\Seen) and keywords.
//
// UIDs follow the order of delivery, from 1 in a new mailbox.
func (s *Server) Deliver(user, mailbox string, raw []byte, date time.Time, flags ...string) {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.folder(user, mailbox)
	if err != nil {
		s.tb.Fatalf("deliver to %s of %s: %v", mailbox, user, err)
	}
	letters, err := s.letters(dir, flags)
	if err != nil {
		s.tb.Fatalf("deliver to %s of %s: %v", mailbox, user, err)
	}
	lines := bytes.Count(raw, []byte("\n")) - bytes.Count(raw, []byte("\r\n"))
	s.serial++
	// Dovecot numbers new files in the order of the time in their names.
	name := filepath.Join(dir, "cur", fmt.Sprintf("%d.M%06dP1.test,S=%d,W=%d:2,%s",
		1_600_000_000+s.serial/1_000_000, s.serial%1_000_000, len(raw), len(raw)+lines, letters))
	if err := os.WriteFile(name, raw, 0o644); err != nil {
		s.tb.Fatal(err)
	}
	if err := os.Chtimes(name, date, date); err != nil {
		s.tb.Fatal(err)
	}
}

// MakeMailbox makes an empty mailbox.
func (s *Server) MakeMailbox(user, mailbox string) {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.folder(user, mailbox); err != nil {
		s.tb.Fatalf("make mailbox %s of %s: %v", mailbox, user, err)
	}
}

// Rename renames a mailbox, as a user of the server would. Its messages keep
// their UIDs. A folder of the old name may be made anew.
func (s *Server) Rename(user, from, to string) {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Doveadm("mailbox", "rename", "-u", user, from, to)
	s.forget(user, from)
}

// Remove removes a mailbox with all that is in it. One of the same name that
// is made later has another UIDVALIDITY.
func (s *Server) Remove(user, mailbox string) {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Doveadm("mailbox", "delete", "-u", user, mailbox)
	s.forget(user, mailbox)
}

// forget forgets what was known of a mailbox's folder, and of those below it.
func (s *Server) forget(user, mailbox string) {
	for key, dir := range s.folders {
		if name, ok := strings.CutPrefix(key, user+"\x00"); ok && (name == mailbox || strings.HasPrefix(name, mailbox+"/")) {
			delete(s.folders, key)
			delete(s.words, dir)
		}
	}
}

func (s *Server) folder(user, mailbox string) (string, error) {
	key := user + "\x00" + mailbox
	if dir, ok := s.folders[key]; ok {
		return dir, nil
	}
	if s.format != "maildir" {
		return "", fmt.Errorf("mail is delivered to a maildir only, this is %s", s.format)
	}
	home := filepath.Join(s.Dir, "home", user)
	dir := filepath.Join(home, "Maildir")
	dirs := []string{home, dir}
	if !strings.EqualFold(mailbox, "INBOX") {
		dir = filepath.Join(dir, "."+strings.ReplaceAll(mailbox, "/", "."))
		dirs = append(dirs, dir)
	}
	dirs = append(dirs, filepath.Join(dir, "cur"), filepath.Join(dir, "new"), filepath.Join(dir, "tmp"))
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o777); err != nil {
			if os.IsExist(err) {
				continue
			}
			return "", err
		}
		if err := s.own(d); err != nil {
			return "", err
		}
	}
	if !strings.EqualFold(mailbox, "INBOX") {
		mark := filepath.Join(dir, "maildirfolder")
		if err := os.WriteFile(mark, nil, 0o644); err != nil {
			return "", err
		}
		if err := s.own(mark); err != nil {
			return "", err
		}
	}
	s.folders[key] = dir
	return dir, nil
}

var flagLetters = map[string]byte{`\draft`: 'D', `\flagged`: 'F', `\answered`: 'R', `\seen`: 'S', `\deleted`: 'T'}

// letters returns flags as a Maildir file name has them. Keywords are letters
// from a on, whose meaning stands in the folder's dovecot-keywords.
func (s *Server) letters(dir string, flags []string) (string, error) {
	var have [128]bool
	for _, f := range flags {
		if l, ok := flagLetters[strings.ToLower(f)]; ok {
			have[l] = true
			continue
		}
		i := 0
		for i < len(s.words[dir]) && s.words[dir][i] != f {
			i++
		}
		if i == len(s.words[dir]) {
			if i == 26 {
				return "", fmt.Errorf("more than 26 keywords in %s", dir)
			}
			s.words[dir] = append(s.words[dir], f)
			var text strings.Builder
			for n, w := range s.words[dir] {
				fmt.Fprintf(&text, "%d %s\n", n, w)
			}
			file := filepath.Join(dir, "dovecot-keywords")
			if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
				return "", err
			}
			if err := s.own(file); err != nil {
				return "", err
			}
		}
		have['a'+i] = true
	}
	var out []byte
	for c, on := range have {
		if on {
			out = append(out, byte(c))
		}
	}
	return string(out), nil
}
