"""The specs that come with minibn, a page each: what is asked for, and what it is worth."""
