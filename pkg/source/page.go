package source

import (
	"slices"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Page picks what the request asks for out of all ids of the mailbox, given
// oldest first: it applies IDs, Newest, After, Skip and Limit. It is for
// sources that know their ids without asking a server for each page. After an
// id that isn't there nothing follows. all is left as it is.
func (r ListRequest) Page(all []message.ID) []message.ID {
	page := slices.Clone(all)
	if r.IDs != nil {
		wanted := make(map[message.ID]bool, len(r.IDs))
		for _, id := range r.IDs {
			wanted[id] = true
		}
		page = slices.DeleteFunc(page, func(id message.ID) bool { return !wanted[id] })
	}
	if r.Newest {
		slices.Reverse(page)
	}
	if r.After != nil {
		at := slices.Index(page, *r.After)
		if at < 0 {
			return nil
		}
		page = page[at+1:]
	}
	page = page[min(max(0, r.Skip), len(page)):]
	if r.Limit > 0 {
		page = page[:min(r.Limit, len(page))]
	}
	return page
}
