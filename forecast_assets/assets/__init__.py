"""One module a layer; a body loads, calls the core and returns the result with its metadata."""
