// Package bench measures a whole export, every process of it, beside what the
// same server gives to other programs in the same minute. METHODOLOGY.md says
// what is measured and what not; `make bench` runs it.
package bench
