"""``%wsmonitor restore``: a recording's outputs back into the open notebook.

=========  ============================================================================
`finding`  which recording: asked of the server
`plan`     what would be done to which cell. Pure
`answers`  what the browser asks, answered from the recording
`copying`  the other way: a restored copy of the notebook's file
`widget`   what is shown; its front-end (static/restore.js) does the restoring itself, because
           the open notebook is in the browser, and only there
=========  ============================================================================
"""
