"""Property-based gradient testing, for minibn's ops and for anybody's."""

from minibn.testing.problem import Problem

__all__ = ["Problem"]
