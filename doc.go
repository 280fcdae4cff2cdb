// Package pebbleparty holds no code: it is the root of the module, whose library
// is package party, one Pebble database opened by many processes at once. See
// README.md for what that gives, docs/ for how it works, and cmd/demo for a
// command line to try it with.
package pebbleparty
