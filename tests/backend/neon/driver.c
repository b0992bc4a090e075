/* Runs steps for a test on another machine: reads jobs from standard input, writes what became of the memory.
 *
 * Linked statically with the library, so that an emulator needs nothing but this file.
 *
 * A job is the int64 of `ln_job`; for each block (arena, weights, tables, then the caller's inputs and outputs) two int64,
 * the bytes of what lies in front of it and its own; kernel names of 64 bytes; step records; and each block with what is
 * in front. The answer begins with an int64: DONE, and then the arena and the outputs, each with what is in front; FAULT,
 * and then four int64: the block that a step had no business in (-1: none), the offset there in bytes, the step, its unit;
 * or the number of the first kernel that is not known, counted from 1. After a FAULT the driver ends.
 *
 * Each block has pages of its own and ends where one ends. Around them lie FENCE_BYTES that nobody may touch, and only the
 * arena and the outputs can be written to. What is in front of those is the test's to look at.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi.h"

enum { NAME_BYTES = 64, PAGE_BYTES = 4096, FENCE_BYTES = 16 * PAGE_BYTES, DONE = 0, FAULT = -1 };
enum { ARENA, WEIGHTS, TABLES, IO }; /* blocks; inputs and outputs follow */

typedef struct {
    int64_t threads, batch, steps, walked, kernels, inputs, outputs;
} ln_job;

typedef struct {
    size_t front_bytes, bytes;
    char *mapped, *front, *inside;
    size_t mapped_bytes;
} ln_block;

static int64_t block_count;
static ln_block *blocks;
static ln_step *records;
static ln_kernel **kernels;
static _Thread_local const ln_step *current;
static _Thread_local int64_t current_unit;

/* Bytes from standard input; the end of it ends the driver. */
static void get(void *memory, size_t bytes) {
    if (fread(memory, 1, bytes, stdin) != bytes) exit(2);
}

static void *get_new(size_t bytes) {
    void *memory = malloc(bytes + 1);
    if (!memory) exit(3);
    get(memory, bytes);
    return memory;
}

static void put(const void *memory, size_t bytes) {
    if (fwrite(memory, 1, bytes, stdout) != bytes) exit(2);
}

static int is_written(int64_t block, const ln_job *job) { return block == ARENA || block >= IO + job->inputs; }

static void get_block(ln_block *block, int written) {
    size_t used = block->front_bytes + block->bytes;
    size_t pages = (used + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    block->mapped_bytes = pages + 2 * FENCE_BYTES;
    block->mapped = mmap(NULL, block->mapped_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block->mapped == MAP_FAILED) exit(3);
    char *first = block->mapped + FENCE_BYTES;
    if (pages && mprotect(first, pages, PROT_READ | PROT_WRITE)) exit(3);
    block->front = first + pages - used;
    block->inside = block->front + block->front_bytes;
    memset(first, 0xFF, pages - used); /* a NaN */
    get(block->front, used);
    if (pages && !written && mprotect(first, pages, PROT_READ)) exit(3);
}

/* Every kernel of a job, to remember whose step it is. */
static void watched(const ln_memory *memory, const ln_step *step, int64_t images, int64_t unit, int64_t worker) {
    current = step, current_unit = unit;
    kernels[step->kernel](memory, step, images, unit, worker);
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    static atomic_flag told = ATOMIC_FLAG_INIT;
    while (atomic_flag_test_and_set(&told)) sleep(1); /* the other thread's message ends the driver */
    char *place = info->si_addr;
    int64_t answer[] = {FAULT, -1, 0, current ? current - records : -1, current_unit};
    for (int64_t i = 0; i < block_count; i++)
        if (place >= blocks[i].mapped && place < blocks[i].mapped + blocks[i].mapped_bytes)
            answer[1] = i, answer[2] = place - blocks[i].inside;
    _exit(write(STDOUT_FILENO, answer, sizeof answer) != sizeof answer);
}

/* A kernel that errs for the tests of this driver: reads, or writes if `option` says so, byte y of block x. */
static void stray(const ln_memory *memory, const ln_step *step, int64_t images, int64_t unit, int64_t worker) {
    (void)memory, (void)images, (void)unit, (void)worker;
    volatile char *place = blocks[step->x].inside + step->y;
    if (step->option)
        *place = 7;
    else
        (void)*place;
}

static int64_t run(const ln_job *job, const char *names) {
    ln_kernel **all_watched = calloc((size_t)job->kernels + 1, sizeof *all_watched);
    kernels = calloc((size_t)job->kernels + 1, sizeof *kernels);
    int64_t unknown = 0, *io = calloc((size_t)block_count, sizeof *io);
    for (int64_t i = 0; i < job->kernels && !unknown; i++) {
        const char *name = names + i * NAME_BYTES;
        all_watched[i] = watched;
        kernels[i] = strcmp(name, "stray") ? ln_kernel_named(name) : stray;
        if (!kernels[i]) unknown = i + 1;
    }
    for (int64_t i = IO; i < block_count; i++) io[i - IO] = (int64_t)(uintptr_t)blocks[i].inside;
    if (!unknown) {
        ln_memory memory = {(float *)blocks[ARENA].inside, (float *)blocks[WEIGHTS].inside,
                            (int32_t *)blocks[TABLES].inside, io};
        int64_t *counters = calloc((size_t)(job->steps * (job->threads + 1) * COUNTER_PITCH) + 1, sizeof *counters);
        ln_run whole = {all_watched, &memory, records, 0, job->walked, job->batch, counters};
        ln_team *team = ln_team_open(job->threads);
        if (!team) exit(3);
        ln_team_run(team, &whole);
        ln_team_close(team);
        free(counters);
    }
    free(io), free(kernels), free(all_watched);
    return unknown;
}

static void serve(const ln_job *job) {
    block_count = IO + job->inputs + job->outputs;
    blocks = calloc((size_t)block_count, sizeof *blocks);
    for (int64_t i = 0; i < block_count; i++) {
        int64_t sizes[2];
        get(sizes, sizeof sizes);
        blocks[i].front_bytes = (size_t)sizes[0], blocks[i].bytes = (size_t)sizes[1];
    }
    char *names = get_new((size_t)job->kernels * NAME_BYTES);
    records = get_new((size_t)job->steps * sizeof *records);
    for (int64_t i = 0; i < block_count; i++) get_block(&blocks[i], is_written(i, job));
    int64_t status = run(job, names);
    put(&status, sizeof status);
    for (int64_t i = 0; i < block_count && status == DONE; i++)
        if (is_written(i, job)) put(blocks[i].front, blocks[i].front_bytes + blocks[i].bytes);
    fflush(stdout);
    for (int64_t i = 0; i < block_count; i++) munmap(blocks[i].mapped, blocks[i].mapped_bytes);
    free(names), free(records), free(blocks);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    ln_job job;
    while (fread(&job, sizeof job, 1, stdin) == 1) serve(&job);
    return 0;
}
