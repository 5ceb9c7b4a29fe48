/* Files that are to be executed, whatever is in them (shim/elf.c). */
#include "elf.h"

#include <string.h>

#include "kernel.h"

static const uint8_t *file;
static size_t file_size;

/* pread64 only. */
long play_kernel(long number, long fd, long to, long size, long at, long e, long f) {
    (void)number, (void)fd, (void)e, (void)f;
    if (at < 0) return -22;
    if ((size_t)at >= file_size) return 0;
    size_t there = file_size - (size_t)at;
    if ((size_t)size < there) there = (size_t)size;
    memcpy((void *)to, file + at, there);
    return (long)there;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    file = data;
    file_size = size;
    kind_of_file(3);
    has_go_note((const char *)data, (long)size);
    return 0;
}
