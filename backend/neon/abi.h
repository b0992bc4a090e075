/* What Python and the C library say to each other: C includes it, and library.py declares the same in ctypes.
 *
 * step.h is written by build.py from the record `kernels.step.STEP`: the struct ln_step, assertions about its size and
 * offsets, constants such as the kinds of units, and the sizes of library.py's structs. So the record has one owner,
 * and a library built for another record cannot load: its cache key differs. LN_ABI counts changes of what is below; library.py refuses any other number.
 */
#ifndef LN_ABI_H
#define LN_ABI_H

#include <stdint.h>

#include "step.h"

#define LN_ABI 1

/* What every kernel works on: `float32` arrays aligned to 64 bytes, int32 tables, addresses of the caller's arrays. */
typedef struct {
    float *arena;
    const float *weights;
    const int32_t *tables;
    const int64_t *io;
} ln_memory;

/* A kernel: one unit of a step for so many images, by one member of the team. As in kernels/table.py. */
typedef void ln_kernel(const ln_memory *memory, const ln_step *step, int64_t images, int64_t unit, int64_t worker);

/* Steps [first, last) for `batch` units of batch. kernels: by ln_step.kernel. counters: as
 * kernels.step.counters_for makes them; not used by a team of one. */
typedef struct {
    ln_kernel *const *kernels;
    const ln_memory *memory;
    const ln_step *steps;
    int64_t first, last, batch;
    int64_t *counters;
} ln_run;

_Static_assert(sizeof(ln_memory) == LN_MEMORY_BYTES && sizeof(ln_run) == LN_RUN_BYTES, "as in library.py");

typedef struct ln_team ln_team;

/* A team of the caller and threads - 1 threads that sleep between runs; NULL if they cannot be started. */
ln_team *ln_team_open(int64_t threads);
void ln_team_close(ln_team *team);
/* The system's thread ids of members 1 to threads - 1. */
void ln_team_tids(const ln_team *team, int64_t *tids);
/* Runs by the whole team; returns when all is done. One caller at a time. */
void ln_team_run(ln_team *team, const ln_run *run);

int64_t ln_abi(void);
/* The kernel of a name such as "conv_gemm_8x3"; NULL if there is none. */
ln_kernel *ln_kernel_named(const char *name);

#endif
