/* Runs steps for a test on another machine: reads jobs from standard input, writes what became of the memory.
 *
 * Linked statically with the library, so that an emulator needs nothing but this file. A job is eight int64 (threads,
 * batch, steps, steps to walk, kernels, and the bytes of weights, tables and arena), the number of the caller's arrays and their sizes
 * in bytes, kernel names of 64 bytes, step records, weights, tables, arena and those arrays. The answer is one int64,
 * 0 or the number of the first kernel that is not known counted from 1, and after a 0 weights, tables, arena and arrays.
 */
#include <stdio.h>
#include <stdlib.h>

#include "abi.h"

enum { NAME_BYTES = 64, HEAD = 9, ALIGN_BYTES = 64 };

static void *get(size_t bytes) {
    void *memory = aligned_alloc(ALIGN_BYTES, (bytes + ALIGN_BYTES) / ALIGN_BYTES * ALIGN_BYTES);
    if (!memory || fread(memory, 1, bytes, stdin) != bytes) exit(2);
    return memory;
}

static void put(const void *memory, size_t bytes) {
    if (fwrite(memory, 1, bytes, stdout) != bytes) exit(2);
}

static void job(const int64_t *head) {
    int64_t threads = head[0], batch = head[1], steps = head[2], walked = head[3], kernels = head[4], arrays = head[8];
    int64_t *sizes = get((size_t)arrays * sizeof(int64_t));
    char *names = get((size_t)kernels * NAME_BYTES);
    ln_step *records = get((size_t)steps * sizeof(ln_step));
    void *parts[3];
    for (int i = 0; i < 3; i++) parts[i] = get((size_t)head[5 + i]);
    int64_t *io = calloc((size_t)arrays + 1, sizeof *io);
    for (int64_t i = 0; i < arrays; i++) io[i] = (int64_t)(uintptr_t)get((size_t)sizes[i]);
    ln_kernel **table = calloc((size_t)kernels + 1, sizeof *table);
    int64_t unknown = 0;
    for (int64_t i = 0; i < kernels; i++) {
        table[i] = ln_kernel_named(names + i * NAME_BYTES);
        if (!table[i] && !unknown) unknown = i + 1;
    }
    put(&unknown, sizeof unknown);
    if (!unknown) {
        ln_memory memory = {parts[2], parts[0], parts[1], io};
        int64_t *counters = calloc((size_t)(steps * (threads + 1) * COUNTER_PITCH) + 1, sizeof *counters);
        ln_run run = {table, &memory, records, 0, walked, batch, counters};
        ln_team *team = ln_team_open(threads);
        if (!team) exit(3);
        ln_team_run(team, &run);
        ln_team_close(team);
        free(counters);
        for (int i = 0; i < 3; i++) put(parts[i], (size_t)head[5 + i]);
        for (int64_t i = 0; i < arrays; i++) put((void *)(uintptr_t)io[i], (size_t)sizes[i]);
    }
    fflush(stdout);
    for (int64_t i = 0; i < arrays; i++) free((void *)(uintptr_t)io[i]);
    for (int i = 0; i < 3; i++) free(parts[i]);
    free(table), free(io), free(records), free(names), free(sizes);
}

int main(void) {
    int64_t head[HEAD];
    while (fread(head, sizeof *head, HEAD, stdin) == HEAD) job(head);
    return 0;
}
