/* What kind of program a file is. */
#ifndef APPSWITCH_ELF_H
#define APPSWITCH_ELF_H

/* LD_PRELOAD can't reach a program without an interpreter, nor one that is written in Go, which makes its system calls
 * by itself. (As appswitch/host/elf.py.) */
enum kind { NO_PROGRAM, WITHIN_PRELOAD, BEYOND_AS_STATIC, BEYOND_BY_GO };

static inline int is_beyond_preload(enum kind kind) {
    return kind >= BEYOND_AS_STATIC;
}

/* Of a file that is open for reading; NO_PROGRAM: it is no 64-bit ELF program. */
enum kind kind_of_file(int fd);

enum { NOTES_SIZE = 512 /* that are looked at */ };

/* Whether Go's build id, or the runtime's (cmd/internal/buildid), is among an ELF file's notes: its name is "Go". */
int has_go_note(const char *notes, long size);

#endif
