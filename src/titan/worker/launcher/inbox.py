"""What came from the worker and is not obeyed yet.

An order holds a job's token and whatever else is in its environment, and a fork has a copy of all our memory. So orders
are received into one place, read where they lie, and overwritten when they were obeyed; no other job finds them.
"""

import _socket

from titan.worker.launcher.frames import Taken, order_at, whole_bytes

_ROOM_BYTES = 65536
_DESCRIPTORS_MAX = 16
_ANCILLARY_BYTES = _socket.CMSG_SPACE(4 * _DESCRIPTORS_MAX)


class Inbox:
    """Orders in the order they came. `descriptors` came with them; None is one that the kernel had to drop."""

    def __init__(self) -> None:
        self._room = memoryview(bytearray(_ROOM_BYTES))
        self._begin = self._end = self._next = 0
        self.descriptors: list[int | None] = []

    def receive(self, control: _socket.socket) -> bool:
        """Take what there is; False at the end of it. Raises BlockingIOError when there is nothing."""
        self._make_room()
        count, ancillary, flags, _ = control.recvmsg_into(
            [self._room[self._end :]], _ANCILLARY_BYTES, _socket.MSG_CMSG_CLOEXEC
        )
        for _, _, packed in ancillary:
            for at in range(0, len(packed) - 3, 4):
                self.descriptors.append(int.from_bytes(packed[at : at + 4], "little"))
        if flags & _socket.MSG_CTRUNC:
            self.descriptors.append(None)
        self._end += count
        return count > 0

    def take(self) -> Taken | None:
        """Return the next whole order, None when there is none yet. The one before is overwritten by this."""
        self._wipe(self._begin, self._next)
        self._begin = self._next
        if self._begin == self._end:
            return None
        size = whole_bytes(self._room[self._begin : self._end])
        if not size:
            return None
        self._next = self._begin + size
        return order_at(self._room[self._begin : self._next])

    def wipe(self) -> None:
        """Overwrite all there is."""
        self._wipe(self._begin, self._end)

    def _wipe(self, begin: int, end: int) -> None:
        if begin < end:
            self._room[begin:end] = bytes(end - begin)

    def _make_room(self) -> None:
        """Move what is not whole yet to the front, and to a larger place if it fills this one."""
        begin, end = self._begin, self._end
        self._begin = self._next = 0
        self._end = end - begin
        if begin == end:
            if len(self._room) > _ROOM_BYTES:
                self._room = memoryview(bytearray(_ROOM_BYTES))
        elif self._end == len(self._room):
            room = memoryview(bytearray(2 * self._end))
            room[: self._end] = self._room
            self._wipe(0, end)
            self._room = room
        elif begin:
            self._room[: self._end] = self._room[begin:end]
            self._wipe(max(begin, self._end), end)
