/* Requests of ptrace(2) to a thread that is traced. Each is 0 or more, or -errno. */
#ifndef APPSWITCH_TRACER_TRACEE_H
#define APPSWITCH_TRACER_TRACEE_H

#include "arch.h"

long request(int what, int tid, uint64_t address, const void *data);

/* signal: what it gets; 0: none. */
void go_on(int tid, int signal);

long get_registers(int tid, registers *regs);
long set_registers(int tid, const registers *regs);

/* Lets a thread run to its next stop before or after a call. The registers there, or -ESRCH: it has been killed, which
 * the next wait tells. */
long run_to_call(int tid, registers *regs);

/* Has the thread, which is at an instruction for that, make the call in `regs`: the call's outcome. */
long make_call(int tid, registers *regs);

/* Whether it is an address (mmap's), not an error. */
static inline int is_address(long value) {
    return value >= 0 || value <= -4096;
}

#endif
