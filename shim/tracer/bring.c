#define _GNU_SOURCE
#include "bring.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#include "../landing/landing.h"
#include "../sys.h"
#include "image.h"
#include "program.h"
#include "tracee.h"

static struct image image;
static int home;

int prepare_to_bring(int given) {
    home = given;
    return load_image(&image, home);
}

uint64_t landing_of(uint64_t library) {
    return library + image.entry;
}

void map_call(registers *regs, size_t size) {
    set_call(regs, SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
}

/* The thread is at the program's first instruction: calls are made from there. */
static long write_library(int tid, const registers *start, struct brought *brought) {
    registers regs = *start;
    map_call(&regs, image.size + STACK_SIZE);
    long base = make_call(tid, &regs);
    if (!is_address(base)) return base;
    relocate_image(&image, (uint64_t)base);
    struct iovec from = {image.bytes, image.filled}, to = {(void *)base, image.filled};
    long written = sys6(SYS_process_vm_writev, tid, SYS_ARG_(&from), 1, SYS_ARG_(&to), 1, 0);
    if (written != (long)image.filled) return written < 0 ? written : -EFAULT;
    regs = *start;
    set_call(&regs, SYS_mprotect, base + (long)image.text, (long)image.text_size, PROT_READ | PROT_EXEC, 0);
    long error = make_call(tid, &regs);
    if (!error) *brought = (struct brought){(uint64_t)base, (uint64_t)base + image.size};
    return error;
}

static long write_and_prepare(int tid, registers *start, int is_go, struct brought *brought) {
    uint64_t at = program_counter(start), word;
    long error = request(PTRACE_PEEKTEXT, tid, at, &word);
    if (error < 0) return error;
    uint64_t patched = word;
    memcpy(&patched, &call_instruction, sizeof call_instruction);
    request(PTRACE_POKETEXT, tid, at, (void *)patched);
    error = write_library(tid, start, brought);
    request(PTRACE_POKETEXT, tid, at, (void *)word);
    if (!error)
        set_preparation(start, landing_of(brought->library), brought->stack + STACK_SIZE - sizeof(struct stack_head),
                        LAND_TO_PREPARE, brought->library + image.constructors, image.count, is_go, home);
    set_registers(tid, start);
    return error;
}

static long bring_where_needed(int tid, struct brought *brought) {
    registers start;
    if (run_to_call(tid, &start) < 0) return -ESRCH;
    enum kind kind = kind_of_program(tid, stack_pointer(&start));
    int is_needed = is_beyond_preload(kind) || (home && kind != NO_PROGRAM);
    return is_needed ? write_and_prepare(tid, &start, kind == BEYOND_BY_GO, brought) : 0;
}

/* Signals wait meanwhile: run_to_call would lose them. */
long bring_library(int tid, struct brought *brought) {
    uint64_t all = ~0ull, mask = 0;
    *brought = (struct brought){0, 0};
    request(PTRACE_GETSIGMASK, tid, sizeof mask, &mask);
    request(PTRACE_SETSIGMASK, tid, sizeof all, &all);
    long error = bring_where_needed(tid, brought);
    request(PTRACE_SETSIGMASK, tid, sizeof mask, &mask);
    return error;
}
