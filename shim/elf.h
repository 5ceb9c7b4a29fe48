/* What kind of program a file is. */
#ifndef APPSWITCH_ELF_H
#define APPSWITCH_ELF_H

enum beyond { WITHIN_PRELOAD = 0, BEYOND_AS_STATIC, BEYOND_BY_GO };

/* Whether LD_PRELOAD can't reach a 64-bit ELF program that is open for reading: it has no interpreter, or it is
 * written in Go, which makes its system calls by itself. (As appswitch/host/elf.py.) */
enum beyond is_beyond_preload(int fd);

#endif
