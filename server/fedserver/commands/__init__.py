"""The commands of `fedserver`, a module a subject: arguments and printing only."""
