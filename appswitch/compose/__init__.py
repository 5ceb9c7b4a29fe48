"""`appswitch compose`: the programs of a Compose-like file, started, watched and stopped together.

    document, interpolation, dotenv    text -> values that know their line
    merge                              several documents, one upon the other
    file                               values -> what may be written, and in which types (schema: the same for editors)
    meaning, project                   what was written -> what is meant, and which of it is wanted
    describe                           the way back
    load                               reads the files, and does the above
    plan, patience                     what to do next, given what has happened; is it healthy: no I/O, no clock
    program, probe, listening, logbook one program; its health; who listens; what was said
    home, requests, supervisor         a project's directory and socket; the process that runs a project

It talks to the trap handler as any face does: over the control socket, and by `appswitch spawn`.
"""
