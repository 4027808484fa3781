package arena

// Turns are the places that one stream has sent, so that they can be taken
// back when nobody reads it any more. The zero value is ready. One goroutine
// at a time uses it.
type Turns struct{ last [Most]Place }

// Send sends p and keeps it in mind.
func (t *Turns) Send(p Place) {
	p.Send()
	t.last[p.Number-1] = p
}

// Unread returns how many of them the other side hasn't freed.
func (t *Turns) Unread() int {
	n := 0
	for _, p := range t.last {
		if p.OK() && p.busy() {
			n++
		}
	}
	return n
}

// Reclaim takes back what the other side hasn't read. A place that has had
// another turn meanwhile stays whose it is.
func (t *Turns) Reclaim() {
	for i, p := range t.last {
		if p.OK() {
			p.Reclaim()
			t.last[i] = Place{}
		}
	}
}
