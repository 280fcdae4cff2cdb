// Package mutant breaks promises of this module on purpose, one at a time: what
// looks for broken promises has to find each of them. Places that keep a promise
// ask here whether they shall.
//
// In a build with the tag "mutation" the environment variable named by Env says
// which promise is broken in that process; there is no other way to it. In every
// other build all of them are constants that are false, and the compiler leaves
// nothing of the places that ask.
package mutant

// Env is the environment variable that names a mutation in a build with the tag:
// what stands in the list of names there. One that is not in the list ends the
// process at once and prints the list.
const Env = "PEBBLEPARTY_MUTATION"
