"""Does a step wait for the device? Counted on the strict double, caught in the act on a GPU."""

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from minibn.backend import Backend
from minibn.backend.strict import count_transfers

PATIENCE = 10  # seconds after which a step that has not come back is waiting


@contextmanager
def nothing_waits(backend: Backend) -> Iterator[list[str]]:
    """Inside, nothing may wait for the device. The list says, afterwards, what has.

    On the strict double: the names of what was asked for, `item` or `to_numpy`. On a GPU the
    device's work is held up by a function of the host that waits for the end of the block: if the
    block ends, it has waited for nothing; if not, a watch writes down where it stands, and lets go.
    What runs inside must have run before, for the compiler and the memory pool do wait.
    """
    waited: list[str] = []
    if backend.name != "cupy":
        with count_transfers() as count:
            yield waited
        waited += count.names
        return
    go_on, me = threading.Event(), threading.get_ident()

    def tell() -> None:
        waited.extend(traceback.format_stack(sys._current_frames()[me])[-3:])
        go_on.set()

    backend.synchronize()
    watch = threading.Timer(PATIENCE, tell)
    stream = backend.xp.cuda.get_current_stream()
    stream.launch_host_func(lambda _: go_on.wait(2 * PATIENCE), None)
    watch.start()
    try:
        yield waited
    finally:
        watch.cancel()
        go_on.set()
        backend.synchronize()
