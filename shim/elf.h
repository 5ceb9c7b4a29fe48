/* What kind of program a file is. */
#ifndef APPSWITCH_ELF_H
#define APPSWITCH_ELF_H

/* Whether LD_PRELOAD can't reach a 64-bit ELF program that is open for reading: it has no interpreter, or it is
 * written in Go, which makes its system calls by itself. (As appswitch/host/elf.py.) */
int is_beyond_preload(int fd);

#endif
