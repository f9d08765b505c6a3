"""The backends that every test of this folder runs on."""

from collections.abc import Iterator

import pytest

from minibn.backend import Backend, available, use


@pytest.fixture(params=["numpy", "strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The backend under test, chosen for new arrays while the test runs."""
    if request.param not in available():
        pytest.skip("CuPy or a GPU is missing")
    with use(request.param) as chosen:
        yield chosen
