/* What kind of program a process has just begun, by what is in its memory: /proc needn't be there. */
#ifndef APPSWITCH_TRACER_PROGRAM_H
#define APPSWITCH_TRACER_PROGRAM_H

#include <stdint.h>

#include "../elf.h"

/* tid: of its only thread, which is traced; stack: its stack pointer at the program's first instruction. */
enum kind kind_of_program(int tid, uint64_t stack);

#endif
