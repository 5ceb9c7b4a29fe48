/* Where the tracer (tracer/trace.c) lands a thread whose system call it has stopped: this library is mapped into a
 * program that LD_PRELOAD can't reach, too, and its entry point (e_entry) is for that. */
#ifndef APPSWITCH_LANDING_H
#define APPSWITCH_LANDING_H

enum {
    LAND_TO_PREPARE = -1 /* instead of a call's number: arg[0] constructors at arg[1] are to be run */
};

#endif
