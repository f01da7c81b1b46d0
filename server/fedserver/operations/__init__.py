"""Operations: the supervisor of `fedserver start`, live view, operator log, backup and restore."""
