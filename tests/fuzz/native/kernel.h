/* In the place of shim/sys.h's own system calls: a kernel that the fuzzer plays (-include kernel.h). */
#ifndef FUZZ_KERNEL_H
#define FUZZ_KERNEL_H

#include "sys.h"

long play_kernel(long number, long a, long b, long c, long d, long e, long f);

#define sys6 play_kernel

#endif
