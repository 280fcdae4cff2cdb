package main

// Main is for the tests, which run their own binary as the command.
var Main = main
