"""The solutions are graded, not collected."""

collect_ignore = ["solutions"]
