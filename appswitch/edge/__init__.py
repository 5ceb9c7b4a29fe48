"""The I/O, under trio: sockets in, sockets out; every decision is asked of `appswitch.core`."""
