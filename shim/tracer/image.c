/* How it works. What a dynamic linker does with a library that needs no other (elf(5)): the segments at their places,
 * then each relocation. Of the symbols that the library imports (errno's place, dlsym, environ) it gets none: they are
 * for its hooks, and nobody calls these here.
 */
#define _GNU_SOURCE
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "../sys.h"
#include "arch.h"

enum { PAGE = 4096, PATH_SIZE = 4096 };

static const char library[] = "libappswitch.so";
static struct table {
    uint64_t at, size;
} relocations, calls; /* DT_RELA, DT_JMPREL */
static const Elf64_Sym *symbols;

static uint64_t page_of(uint64_t at) {
    return at & ~(uint64_t)(PAGE - 1);
}

static uint64_t pages(uint64_t size) {
    return page_of(size + PAGE - 1);
}

static long map(size_t size, int fd) {
    return sys6(SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
}

static long open_library(int home) {
    char path[PATH_SIZE];
    if (home) return sys4(SYS_openat, home, library, O_RDONLY | O_CLOEXEC, 0);
    long size = sys3(SYS_readlink, "/proc/self/exe", path, sizeof path - sizeof library);
    while (size > 0 && path[size - 1] != '/') size--;
    if (size <= 0) return size ? size : -ENOENT;
    memcpy(path + size, library, sizeof library);
    return sys4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
}

/* Whether there are only relocations of the kinds that `relocate` knows. */
static int knows(const struct image *image, const struct table *table) {
    const Elf64_Rela *first = (const Elf64_Rela *)(image->bytes + table->at);
    for (const Elf64_Rela *each = first; each < first + table->size / sizeof *each; each++) {
        uint32_t type = ELF64_R_TYPE(each->r_info);
        if (type != RELOCATE_BASE && type != RELOCATE_SYMBOL && type != RELOCATE_CALL) return 0;
    }
    return 1;
}

static void place_segments(struct image *image, const uint8_t *file, const Elf64_Phdr *segments, int count) {
    for (int i = 0; i < count; i++) {
        const Elf64_Phdr *each = &segments[i];
        if (each->p_type != PT_LOAD) continue;
        memcpy(image->bytes + each->p_vaddr, file + each->p_offset, each->p_filesz);
        if (each->p_vaddr + each->p_filesz > image->filled) image->filled = each->p_vaddr + each->p_filesz;
        if (each->p_flags & PF_X) {
            image->text = page_of(each->p_vaddr);
            image->text_size = pages(each->p_vaddr + each->p_memsz) - image->text;
        }
    }
}

static void read_dynamic(struct image *image, const Elf64_Dyn *each) {
    for (; each->d_tag != DT_NULL; each++) {
        uint64_t value = each->d_un.d_val;
        switch (each->d_tag) {
        case DT_SYMTAB:
            symbols = (const Elf64_Sym *)(image->bytes + value);
            break;
        case DT_RELA:
            relocations.at = value;
            break;
        case DT_RELASZ:
            relocations.size = value;
            break;
        case DT_JMPREL:
            calls.at = value;
            break;
        case DT_PLTRELSZ:
            calls.size = value;
            break;
        case DT_INIT_ARRAY:
            image->constructors = value;
            break;
        case DT_INIT_ARRAYSZ:
            image->count = value / sizeof(uint64_t);
            break;
        }
    }
}

int load_image(struct image *image, int home) {
    struct stat status;
    long fd = open_library(home);
    if (fd < 0) return (int)fd;
    long error = sys2(SYS_fstat, fd, &status), at = error < 0 ? error : map((size_t)status.st_size, (int)fd);
    sys1(SYS_close, fd);
    if (at < 0 && at > -PAGE) return (int)at;
    const uint8_t *file = (const uint8_t *)at;
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)file;
    const Elf64_Phdr *segments = (const Elf64_Phdr *)(file + head->e_phoff);
    for (int i = 0; i < head->e_phnum; i++)
        if (segments[i].p_type == PT_LOAD) image->size = pages(segments[i].p_vaddr + segments[i].p_memsz);
    at = map(image->size, -1);
    if (at < 0 && at > -PAGE) return (int)at;
    image->bytes = (uint8_t *)at;
    image->entry = head->e_entry;
    place_segments(image, file, segments, head->e_phnum);
    for (int i = 0; i < head->e_phnum; i++)
        if (segments[i].p_type == PT_DYNAMIC)
            read_dynamic(image, (const Elf64_Dyn *)(image->bytes + segments[i].p_vaddr));
    return knows(image, &relocations) && knows(image, &calls) ? 0 : -ENOEXEC;
}

static void relocate(struct image *image, const struct table *table, uint64_t base) {
    const Elf64_Rela *first = (const Elf64_Rela *)(image->bytes + table->at);
    for (const Elf64_Rela *each = first; each < first + table->size / sizeof *each; each++) {
        const Elf64_Sym *symbol = &symbols[ELF64_R_SYM(each->r_info)];
        uint64_t value = symbol->st_shndx ? base + symbol->st_value : 0;
        if (ELF64_R_TYPE(each->r_info) == RELOCATE_BASE) value = base + (uint64_t)each->r_addend;
        memcpy(image->bytes + each->r_offset, &value, sizeof value);
    }
}

void relocate_image(struct image *image, uint64_t base) {
    relocate(image, &relocations, base);
    relocate(image, &calls, base);
}
