"""What a wrong gradient looks like, and a script that reproduces it."""
