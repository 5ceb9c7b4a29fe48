/* Bringing the library into a program that LD_PRELOAD can't reach. */
#ifndef APPSWITCH_TRACER_BRING_H
#define APPSWITCH_TRACER_BRING_H

#include <stddef.h>
#include <stdint.h>

#include "arch.h"

/* Where it is, and the stack after it; 0: there is none, it isn't needed. */
struct brought {
    uint64_t library, stack;
};

/* Reads the library's file. home: a descriptor of its directory, which programs are given, too: each is brought the
 * library then; 0: it is in this program's own. 0 or -errno. */
int prepare_to_bring(int home);

/* A program has just been executed (PTRACE_EVENT_EXEC): writes the library into it where it is needed, and has it
 * prepare itself before the program begins. 0 or -errno; the thread waits for the tracer's word in any case. */
long bring_library(int tid, struct brought *brought);

/* Makes memory: the call that `regs` are of becomes mmap. */
void map_call(registers *regs, size_t size);

/* The library's landing, once it is there. */
uint64_t landing_of(uint64_t library);

#endif
