"""Checks of functions of other frameworks. Each framework is imported when its check is called."""
