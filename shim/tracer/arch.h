#ifndef APPSWITCH_TRACER_ARCH_H
#define APPSWITCH_TRACER_ARCH_H

#if defined(__x86_64__)
#include "x86_64.h"
#else
#error "the tracer knows the registers of x86_64 only"
#endif

#endif
