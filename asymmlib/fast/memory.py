"""Places in a piece of memory for tensors that live for a while: what is given back is used again."""

__all__ = ["Memory", "Place"]

ALIGNMENT = 64  # bytes

Place = tuple[int, int]  # (owner, offset in bytes)


class Memory:
    """Places in a piece of memory, of which `size` bytes are needed; a place given back is used again."""

    def __init__(self, owner: int) -> None:
        self.owner, self.size = owner, 0
        self.taken: dict[int, int] = {}  # offset: size
        self.free: list[tuple[int, int]] = []

    def take(self, numbers: int) -> Place:
        """A place for so many floats."""
        need = -(-4 * numbers // ALIGNMENT) * ALIGNMENT
        for i, (offset, size) in enumerate(self.free):
            if size >= need:
                self.free[i:i + 1] = [(offset + need, size - need)] if size > need else []
                break
        else:
            offset, self.size = self.size, self.size + need
        self.taken[offset] = need
        return self.owner, offset

    def give(self, place: Place) -> None:
        """Hand a place back; one of another owner, or one that was handed back, is left alone."""
        if place[0] != self.owner or place[1] not in self.taken:
            return
        merged: list[tuple[int, int]] = []
        for offset, size in sorted([*self.free, (place[1], self.taken.pop(place[1]))]):
            if merged and sum(merged[-1]) == offset:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((offset, size))
        self.free = merged
