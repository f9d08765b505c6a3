"""The description of a wrong gradient's error, and a script that reproduces it."""
