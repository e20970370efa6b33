"""The kernel recorder: every cell that runs becomes a step of a session, with its outputs.

============ ================================================================================
module       holds
============ ================================================================================
iopub        the kernel's own messages: where they are heard, and reading them
cells        one execution: its outputs, log lines and progress, and when to publish them
titles       what a cell is called in a list
turns        whose turn it is: the recorder's work between that of cells
progress     bars: tqdm's text, and the widgets of notebooks
publishing   the session, chain and steps of a recording
interrupting the command ``interrupt``, which reaches exactly the cell that it names
outcomes     how an execution ended, as the state of its step
prompts      who waits for input
recorder     the thread that hears, the hooks that tell a cell's source, starting and ending
starting     ``%wsmonitor record``: the name, what is said, configuration
============ ================================================================================

It listens as any front-end does, so that it cannot change what a cell prints. Two hooks of IPython, which
read and return, tell what the messages do not: source, cell id, and how the execution ended.
"""

from __future__ import annotations
