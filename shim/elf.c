#include "elf.h"

#include <elf.h>

#include "sys.h"

enum { MOST_SEGMENTS = 64 };

int has_go_note(const char *notes, long size) {
    for (long at = 0; at + (long)sizeof(Elf64_Nhdr) + 4 <= size;) {
        Elf64_Nhdr note;
        memcpy(&note, notes + at, sizeof note);
        if (note.n_namesz == 4 && note.n_type == 4 && memcmp(notes + at + sizeof note, "Go\0", 4) == 0) return 1;
        at += (long)sizeof note + (((long)note.n_namesz + 3) & ~3l) + (((long)note.n_descsz + 3) & ~3l);
    }
    return 0;
}

static int is_go_segment(int fd, const Elf64_Phdr *segment) {
    char notes[NOTES_SIZE];
    long size = segment->p_filesz < sizeof notes ? (long)segment->p_filesz : (long)sizeof notes;
    return has_go_note(notes, sys4(SYS_pread64, fd, notes, size, segment->p_offset));
}

enum kind kind_of_file(int fd) {
    Elf64_Ehdr head;
    Elf64_Phdr segments[MOST_SEGMENTS];
    int has_interpreter = 0;
    if (sys4(SYS_pread64, fd, &head, sizeof head, 0) != sizeof head) return NO_PROGRAM;
    if (memcmp(head.e_ident, ELFMAG, SELFMAG) || head.e_ident[EI_CLASS] != ELFCLASS64) return NO_PROGRAM;
    if (head.e_phentsize != sizeof *segments || head.e_phnum > MOST_SEGMENTS) return NO_PROGRAM;
    long size = head.e_phnum * (long)sizeof *segments;
    if (sys4(SYS_pread64, fd, segments, size, head.e_phoff) != size) return NO_PROGRAM;
    for (int i = 0; i < head.e_phnum; i++) {
        has_interpreter |= segments[i].p_type == PT_INTERP;
        if (segments[i].p_type == PT_NOTE && is_go_segment(fd, &segments[i])) return BEYOND_BY_GO;
    }
    return has_interpreter ? WITHIN_PRELOAD : BEYOND_AS_STATIC;
}
