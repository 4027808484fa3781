//go:build !unix

package main

// withoutCore does nothing: this system leaves no cores unless an administrator
// says so.
func withoutCore() {}
