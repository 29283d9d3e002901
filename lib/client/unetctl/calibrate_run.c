/* Networks that run for unetctl calibrate. */
#include "calibrate.h"
#include "command.h"

#include <errno.h>
#include <string.h>
#include <sysexits.h>

static void count(void *opaque, size_t layer, const struct backend_sight *sight)
{
    struct tally *tally = ((struct tally **)opaque)[layer];
    if (tally)
        tally_add(tally, sight);
}

int calibrate_engine_start(const struct calibrate_setup *setup, struct calibrate_engine *out)
{
    char error[COMMAND_ERROR_MAX] = "";
    const struct network *network = NULL;
    const struct model_dir *dir = &setup->source->dir;
    int rc = source_load(setup->source, &network, error, sizeof error);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    struct backend_options options = {
        .precision = setup->ranges ? "int8" : "f32",
        .threads = setup->threads,
        .preprocess = {dir->offset, dir->scale, dir->clip, dir->clip_low, dir->clip_high},
        .opaque = (void *)setup->tallies,
        .observe = setup->tallies ? count : NULL,
        .ranges = setup->ranges,
    };
    /* Where the processor lacks the instructions, the reference computes the same, slowly. */
    static const char *const names[] = {"auto", "reference"};
    for (size_t i = 0; i < 2; i++) {
        struct calibrate_engine engine = {
            .backend = backend_choose(names[i], network, options.precision)};
        rc = engine.backend->create(network, &options, &engine.instance, error, sizeof error);
        if (rc == 0) {
            *out = engine;
            return 0;
        }
    }
    return command_fail(command_exit_code(rc), "%s", error);
}

int calibrate_engine_run(const struct calibrate_engine *engine, const struct calibrate_piece *piece,
                         uint8_t *labels)
{
    struct backend_batch batch = {.count = 1,
                                  .dtype = piece->dtype,
                                  .height = piece->height,
                                  .width = piece->width,
                                  .inputs = &piece->data,
                                  .labels = &labels};
    int rc = engine->backend->forward(engine->instance, &batch);
    return rc < 0 ? command_fail(EX_SOFTWARE, "the network did not run: %s", strerror(-rc)) : 0;
}

void calibrate_engine_stop(struct calibrate_engine *engine)
{
    if (engine->instance)
        engine->backend->destroy(engine->instance);
    *engine = (struct calibrate_engine){0};
}
