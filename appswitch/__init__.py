"""AppSwitch: an IP, a name and tags for any unmodified program, without touching the network.

The map of the packages is in docs/design.md. Nothing is imported here: `appswitch spawn` starts a program, and what it
does not import it need not wait for.
"""
