"""The rungs of the ladder behind one small interface; nothing here reads or writes a disk."""
