/* How it works. The kernel puts a program's arguments, its environment, and then the auxiliary vector on its stack
 * (getauxval(3)). That tells where the program headers are, and whether there is an interpreter.
 */
#include "program.h"

#include <elf.h>
#include <sys/uio.h>

#include "../sys.h"

enum { MOST_SEGMENTS = 64 };

struct auxiliary {
    uint64_t headers, count, interpreter; /* AT_PHDR, AT_PHNUM, AT_BASE */
};

/* What can be read of it; the rest is zeros. */
static void read_memory(int tid, uint64_t at, void *to, size_t size) {
    struct iovec here = {to, size}, there = {(void *)at, size};
    memset(to, 0, size);
    sys6(SYS_process_vm_readv, tid, SYS_ARG_(&here), 1, SYS_ARG_(&there), 1, 0);
}

/* Past the NULL that ends a list. */
static uint64_t past_list(int tid, uint64_t at) {
    for (uint64_t word = 1; word; at += sizeof word) read_memory(tid, at, &word, sizeof word);
    return at;
}

static struct auxiliary read_auxiliary(int tid, uint64_t stack) {
    struct auxiliary found = {0};
    uint64_t at = past_list(tid, past_list(tid, stack + sizeof(uint64_t) /* the number of arguments */));
    for (Elf64_auxv_t each = {.a_type = 1}; each.a_type != AT_NULL; at += sizeof each) {
        read_memory(tid, at, &each, sizeof each);
        if (each.a_type == AT_PHDR) found.headers = each.a_un.a_val;
        if (each.a_type == AT_PHNUM) found.count = each.a_un.a_val;
        if (each.a_type == AT_BASE) found.interpreter = each.a_un.a_val;
    }
    return found;
}

/* How far the program is from where its file says. */
static uint64_t displacement(const Elf64_Phdr segments[], int count, uint64_t headers) {
    for (int i = 0; i < count; i++)
        if (segments[i].p_type == PT_PHDR) return headers - segments[i].p_vaddr;
    for (int i = 0; i < count; i++) /* they follow the file's head */
        if (segments[i].p_type == PT_LOAD) return headers - sizeof(Elf64_Ehdr) - segments[i].p_vaddr;
    return 0;
}

enum kind kind_of_program(int tid, uint64_t stack) {
    struct auxiliary found = read_auxiliary(tid, stack);
    if (!found.headers) return NO_PROGRAM; /* another ABI's */
    Elf64_Phdr segments[MOST_SEGMENTS];
    char notes[NOTES_SIZE];
    int count = found.count < MOST_SEGMENTS ? (int)found.count : MOST_SEGMENTS;
    read_memory(tid, found.headers, segments, (size_t)count * sizeof *segments);
    uint64_t from = displacement(segments, count, found.headers);
    for (int i = 0; i < count; i++) {
        if (segments[i].p_type != PT_NOTE) continue;
        size_t size = segments[i].p_filesz < sizeof notes ? segments[i].p_filesz : sizeof notes;
        read_memory(tid, segments[i].p_vaddr + from, notes, size);
        if (has_go_note(notes, (long)size)) return BEYOND_BY_GO;
    }
    return found.interpreter ? WITHIN_PRELOAD : BEYOND_AS_STATIC;
}
