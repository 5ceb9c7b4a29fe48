"""How fast AppSwitch is between hosts, beside plain TCP and HAProxy, and how a cluster fares: `./dev bench hosts`.

The hosts are network namespaces of this machine, joined by a bridge (tests/hosts.py), each with its own trap handler.
"""
