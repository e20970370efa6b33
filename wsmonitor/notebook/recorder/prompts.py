"""Who waits for somebody to type, told by the stacks of threads. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType


def input_prompts(frames: Mapping[int, FrameType]) -> dict[str, str]:
    """Who waits for input now, of these threads' frames: the prompt by the ``msg_id`` of the request.

    `input` and `getpass.getpass` wait in one function of ipykernel. Looking at it changes nothing, as
    putting ourselves in its place would: our frame would stand in the cell's tracebacks.
    """
    found = {}
    for frame in frames.values():
        at: FrameType | None = frame
        for _ in range(8):
            if at is None:
                break
            if at.f_code.co_name == "_input_request" and "ipykernel" in at.f_code.co_filename:
                parent = at.f_locals.get("parent")
                prompt = at.f_locals.get("prompt")
                if isinstance(parent, Mapping):
                    ident = str(parent.get("header", {}).get("msg_id", ""))
                    found[ident] = prompt if isinstance(prompt, str) else ""
                break
            at = at.f_back
    return found
