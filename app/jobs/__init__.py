"""Work over many sessions, several at once: imports, exports, copies, verification."""
