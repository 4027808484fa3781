package message

// usualAddresses appends to out what nearly all mail has, as anyAddresses
// reads it: Alice Adams <alice@example.org>, "Adams, A." <alice@example.org>,
// alice@example.org, and lists of them. It is false for everything else.
func usualAddresses(out []Address, list string) ([]Address, bool) {
	for i := 0; ; i++ {
		for i < len(list) && (list[i] == ' ' || list[i] == '\t') {
			i++
		}
		if i == len(list) {
			return nil, false
		}
		// The words before a bracket, or the address.
		var words string
		inQuotes := list[i] == '"'
		if inQuotes {
			start := i + 1
			for i++; i < len(list) && usualByte[list[i]]&inQuote != 0; i++ {
				if list[i] == ' ' && list[i-1] == ' ' {
					return nil, false
				}
			}
			if i == len(list) || list[i] != '"' {
				return nil, false
			}
			words = trimSpaces(list[start:i])
			i++
		}
		start := i
		at := false
		for i < len(list) && usualByte[list[i]]&inWord != 0 {
			if list[i] == ' ' && i > 0 && list[i-1] == ' ' {
				return nil, false
			}
			at = at || list[i] == '@'
			i++
		}
		bare := trimSpaces(list[start:i])
		switch {
		case inQuotes && bare != "":
			return nil, false
		case !inQuotes:
			words = bare
		}
		if i == len(list) || list[i] == ',' {
			if inQuotes || !at || hasSpace(bare) {
				return nil, false
			}
			out = append(out, Address{Address: bare})
		} else {
			if list[i] != '<' {
				return nil, false
			}
			start = i + 1
			for i++; i < len(list) && usualByte[list[i]]&inAddress != 0; i++ {
			}
			if i == start || i == len(list) || list[i] != '>' {
				return nil, false
			}
			out = append(out, Address{Name: words, Address: list[start:i]})
			for i++; i < len(list) && (list[i] == ' ' || list[i] == '\t'); i++ {
			}
		}
		if i == len(list) {
			return out, true
		}
		if list[i] != ',' {
			return nil, false
		}
	}
}

// What an octet may be part of, where nothing is special.
const (
	inAddress = 1 << iota
	inWord
	inQuote
)

var usualByte = func() (t [256]byte) {
	for c := '0'; c <= '9'; c++ {
		t[c] = inAddress | inWord | inQuote
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] = inAddress | inWord | inQuote
		t[c-'a'+'A'] = inAddress | inWord | inQuote
	}
	for _, c := range "@._-+=/&'" {
		t[c] = inAddress | inWord | inQuote
	}
	t[' '] = inWord | inQuote
	for _, c := range ",;:<>()[]" {
		t[c] |= inQuote
	}
	return t
}()

func trimSpaces(s string) string {
	for s != "" && s[0] == ' ' {
		s = s[1:]
	}
	for s != "" && s[len(s)-1] == ' ' {
		s = s[:len(s)-1]
	}
	return s
}

func hasSpace(s string) bool {
	for i := range len(s) {
		if s[i] == ' ' {
			return true
		}
	}
	return false
}
