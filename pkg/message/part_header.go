package message

// NewPart returns a part with what the header block of an entity says of it:
// type, parameters, names, disposition. For sources that learn of parts from a
// server: they read names exactly as ReadStructure does. Path, sizes, Inline
// and Children are the caller's to fill in.
func NewPart(header []byte) *Part {
	p := &Part{EncodedSize: -1, Size: -1}
	readPart(p, header, "text/plain")
	return p
}
