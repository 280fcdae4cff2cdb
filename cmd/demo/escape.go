package main

import (
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// appendEscaped appends field so that it holds no tab and no line end and can be
// shown on a terminal.
func appendEscaped(line, field []byte) []byte {
	const hex = "0123456789abcdef"
	for len(field) > 0 {
		r, size := utf8.DecodeRune(field)
		switch {
		case r == '\\':
			line = append(line, `\\`...)
		case r == '\t':
			line = append(line, `\t`...)
		case r == '\n':
			line = append(line, `\n`...)
		case r == '\r':
			line = append(line, `\r`...)
		case r == utf8.RuneError && size == 1, unicode.IsControl(r):
			for _, b := range field[:size] {
				line = append(line, '\\', 'x', hex[b>>4], hex[b&15])
			}
		default:
			line = append(line, field[:size]...)
		}
		field = field[size:]
	}
	return line
}

// printable is a key as messages show it.
func printable(key string) string { return string(appendEscaped(nil, []byte(key))) }

// unescape undoes appendEscaped.
func unescape(field []byte) ([]byte, error) {
	out := make([]byte, 0, len(field))
	for i := 0; i < len(field); i++ {
		if field[i] != '\\' {
			out = append(out, field[i])
			continue
		}
		rest := field[i+1:]
		switch {
		case len(rest) > 0 && rest[0] == '\\':
			out = append(out, '\\')
		case len(rest) > 0 && rest[0] == 't':
			out = append(out, '\t')
		case len(rest) > 0 && rest[0] == 'n':
			out = append(out, '\n')
		case len(rest) > 0 && rest[0] == 'r':
			out = append(out, '\r')
		case len(rest) > 2 && rest[0] == 'x':
			b, err := strconv.ParseUint(string(rest[1:3]), 16, 8)
			if err != nil {
				return nil, fmt.Errorf("bad escape \\%s", rest[:3])
			}
			out = append(out, byte(b))
			i += 2
		default:
			return nil, fmt.Errorf("bad escape at byte %d", i)
		}
		i++
	}
	return out, nil
}
