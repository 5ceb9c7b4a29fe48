/* The tracer: has the calls that the filter stops made by the shim's code, in the program's own threads. */
#ifndef APPSWITCH_TRACER_TRACE_H
#define APPSWITCH_TRACER_TRACE_H

/* Begins to trace a process, which goes on running. 0 or -errno. */
int seize(int pid);

/* Traces it and all that it starts, until the last of them has ended. ended: gets a byte when `pid` itself has; then
 * this process holds nothing of its terminal any more. */
void trace(int pid, int ended);

#endif
