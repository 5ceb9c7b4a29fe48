/* Where the tracer (tracer/) lands a thread whose system call has been taken away: this library is mapped into a
 * program that LD_PRELOAD can't reach, too, and its entry point (e_entry) is for that. What both sides must know. */
#ifndef APPSWITCH_LANDING_H
#define APPSWITCH_LANDING_H

#include <errno.h>
#include <stdint.h>

enum {
    /* Instead of a call's number: the arg[1] constructors at arg[0] are to be run. arg[2]: the program is Go's; arg[3]:
     * a descriptor of the tracer's directory (hand_on.h), or 0. */
    LAND_TO_PREPARE = -1,
    TRAP_REASON = 0x4153, /* what the filter gives the kernel to tell SIGSYS's handler, so that we know ours */
    /* What the filter (tracer/filter.c) answers to a question of ours, a socket of no family: how calls are trapped. */
    ANSWER_TRACED = EALREADY,
    ANSWER_TRAPPED = EINPROGRESS,
    STACK_SIZE = 256 * 1024 /* to land on: a program's own may be tiny */
};

/* The tracer's first argument, where the program is given as a descriptor, which is to be closed at exec. */
#define AS_TRACED_FD "--fd="

/* Its own name, where it isn't found by its path: a descriptor of its directory. */
#define AS_TRACER_HOME "home="

/* What is at the end of a stack; it is used downwards from here. */
struct stack_head {
    uint64_t in_use; /* for the tracer; set and cleared by the landing */
    uint32_t owner;  /* for stacks.c; cleared by the landing */
    uint32_t memory;
    uint64_t turn, unused; /* so that the stack begins aligned to 16 bytes */
};

/* The entry point. */
void land(void);

#endif
